-- Keep as many replicas of each daemon as its deployment asks for: queue missing ones, stop the rest.
-- Idempotent: a unique index allows one live run per replica. Returns how many changes were made.
create or replace function kirby.plan_daemons()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_row     record;
  v_changes integer := 0;
begin
  for v_row in
    select d.id, r.replica::smallint as replica
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id and j.kind = 'daemon'
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     cross join generate_series(0, v.replicas - 1) as r (replica)
     where not exists (select from kirby.run l
                        where l.deployment_id = d.id and l.replica = r.replica
                          and l.status in ('queued', 'starting', 'running'))
     order by d.id, r.replica
  loop
    begin
      perform kirby.queue_run(v_row.id, 'daemon', 'kirby', null, v_row.replica);
      v_changes := v_changes + 1;
    exception when unique_violation then
      null;  -- another planner was faster
    end;
  end loop;

  for v_row in
    select r.id, r.status
      from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where r.replica >= v.replicas and r.cancel_at is null
       and r.status in ('queued', 'starting', 'running')
     order by r.id
       for update of r skip locked
  loop
    perform kirby.cancel_run(v_row.id, 'fewer replicas are deployed', 'kirby');
    v_changes := v_changes + 1;
  end loop;
  return v_changes;
end;
$$;
