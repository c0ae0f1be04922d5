-- End a shadow: its run is cancelled, its subscriptions are removed (they would keep messages from retention). What it
-- wrote stays to be compared. Audited. KB002: no such shadow in the environment. KB004: it was stopped.
create or replace function kirby.stop_shadow(p_environment_id smallint, p_shadow_id integer, p_actor text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run bigint;
begin
  update kirby.shadow h set stopped_at = kirby.now()
   where h.id = p_shadow_id and h.environment_id = p_environment_id and h.stopped_at is null;
  if not found then
    if exists (select from kirby.shadow h where h.id = p_shadow_id and h.environment_id = p_environment_id) then
      perform kirby.fail('KB004', format('shadow %s was stopped already', p_shadow_id));
    end if;
    perform kirby.fail('KB002', format('there is no shadow %s in this environment', p_shadow_id));
  end if;
  for v_run in select r.id from kirby.run r where r.shadow_id = p_shadow_id and r.ended_at is null order by r.id loop
    perform kirby.cancel_run(v_run, 'its shadow was stopped', p_actor);
  end loop;
  delete from kirby.subscription s where s.shadow_id = p_shadow_id;
  perform kirby.audit(p_actor, 'shadow_stopped', 'shadow/' || p_shadow_id);
end;
$$;
