-- Open the incident of a channel that does not work, or count one more failure of it. Others tell of it (channels_of).
create or replace function kirby.break_channel(p_channel kirby.channel, p_answer text)
  returns void
  language sql
  volatile
as $$
  select kirby.open_incident(
    p_channel.environment_id, null, 'channel', 'channel/' || p_channel.id,
    format('the channel %s cannot be reached: %s', p_channel.name, p_answer),
    jsonb_build_object('channel_id', p_channel.id, 'channel', p_channel.name, 'answer', p_answer,
                       'failing_since', p_channel.failing_since));
$$;
