-- Queue the runs of the ticks that are due; returns how many. The tick and its run are one transaction.
-- After an outage only the last due tick of a deployment is run, the ones before it are marked. A tick
-- that comes while the last run is still under way is skipped, and says so, unless the deployment says that
-- runs are to wait for each other, go on beside each other, or replace each other (concurrency).
create or replace function kirby.fire_ticks()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_tick   kirby.tick;
  v_reason text;
  v_policy text;
  v_fired  integer := 0;
begin
  for v_tick in
    select * from kirby.tick
     where status = 'planned' and at <= kirby.now()
     order by at, deployment_id
       for update skip locked
  loop
    select v.concurrency into v_policy
      from kirby.deployment d
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where d.id = v_tick.deployment_id
       for no key update of d;
    v_reason := case
      when exists (select from kirby.tick l
                    where l.deployment_id = v_tick.deployment_id and l.at > v_tick.at
                      and l.at <= kirby.now() and l.status <> 'skipped')
        then 'a later tick was due already'
      when v_policy in ('default', 'skip') and kirby.live_run(v_tick.deployment_id) is not null
        then 'the run before it had not ended'
    end;
    if v_reason is null then
      update kirby.tick set status = 'queued',
             run_id = kirby.queue_run(v_tick.deployment_id, 'schedule', 'kirby', v_tick.at)
       where deployment_id = v_tick.deployment_id and at = v_tick.at;
      v_fired := v_fired + 1;
    else
      update kirby.tick set status = 'skipped', reason = v_reason
       where deployment_id = v_tick.deployment_id and at = v_tick.at;
      perform kirby.append_job_event(null, v_tick.deployment_id, 'tick_skipped',
                jsonb_build_object('at', v_tick.at, 'reason', v_reason), 'kirby');
    end if;
  end loop;
  return v_fired;
end;
$$;
