-- Remove a channel with its routes and what is known of its deliveries; notices on their way to it are given up, and its
-- incident is over. Audited. KB002: there is none of that id.
create or replace function kirby.remove_channel(p_channel_id integer, p_actor text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_channel kirby.channel;
begin
  delete from kirby.channel c where c.id = p_channel_id returning * into v_channel;
  if not found then
    perform kirby.fail('KB002', format('there is no channel %s', p_channel_id));
  end if;
  perform kirby.mend_channel(v_channel, p_actor, 'the channel was removed');
  perform kirby.audit(p_actor, 'channel_removed', 'channel/' || v_channel.name,
                      jsonb_build_object('url', v_channel.url, 'environment_id', v_channel.environment_id));
end;
$$;
