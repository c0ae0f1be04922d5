-- Send a notice to channels, in the caller's transaction: a message each, by the key of the channel, on the topic
-- kirby.notices of the environment that it is about, or of the channel's own, or of the first. Returns how many there are.
create or replace function kirby.send_to_channels(p_environment_id smallint, p_channels integer[], p_notice jsonb)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_place    smallint;
  v_messages jsonb;
  v_sent     integer := 0;
begin
  for v_place, v_messages in
    select coalesce(p_environment_id, c.environment_id, (select min(e.id) from kirby.environment e)) as place,
           jsonb_agg(jsonb_build_object(
             'k', c.name, 'v', p_notice || jsonb_build_object('channel', c.name, 'channel_id', c.id)) order by c.id)
      from kirby.channel c
     where c.id = any (p_channels)
     group by place
     order by place
  loop
    perform kirby.append_messages(v_place, null, jsonb_build_object('kirby.notices', v_messages));
    v_sent := v_sent + jsonb_array_length(v_messages);
  end loop;
  return v_sent;
end;
$$;
