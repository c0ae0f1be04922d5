-- Have a channel tested: a notice of its own, delivered as every other by whoever delivers, in no order with them and
-- once. Returns its position, by which kirby.delivery tells what became of it. Audited. KB002: no such channel.
create or replace function kirby.try_channel(p_channel_id integer, p_environment_id smallint, p_actor text)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_channel kirby.channel;
  v_new     record;
begin
  select * into v_channel from kirby.channel c where c.id = p_channel_id;
  if not found then
    perform kirby.fail('KB002', format('there is no channel %s', p_channel_id));
  end if;
  v_new := kirby.append_messages(coalesce(v_channel.environment_id, p_environment_id), null,
    jsonb_build_object('kirby.notices', jsonb_build_array(jsonb_build_object('v', jsonb_build_object(
      'event', 'test', 'kind', 'test', 'title', 'a test of this channel', 'channel', v_channel.name,
      'channel_id', v_channel.id, 'by', p_actor, 'at', kirby.now(),
      'environment', (select e.name from kirby.environment e where e.id = v_channel.environment_id))))));
  perform kirby.audit(p_actor, 'channel_tested', 'channel/' || v_channel.name);
  return v_new.positions[1];
end;
$$;
