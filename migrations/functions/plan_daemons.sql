-- Keep as many replicas of each daemon as its deployment asks for, and beside them those of its canary: queue
-- missing ones, stop the rest; none while an exception pauses it. Idempotent: a unique index allows one live run per
-- replica. Returns how many changes were made.
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
    with asked as (
      select d.id, false as canary, d.version, v.replicas from kirby.deployment d
        join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
       union all
      select d.id, true, d.canary_version, d.canary_replicas from kirby.deployment d
       where d.canary_version is not null
    )
    select a.id, a.canary, a.version, r.replica::smallint as replica
      from asked a
      join kirby.deployment d on d.id = a.id
      join kirby.job j on j.id = d.job_id and j.kind = 'daemon'
     cross join generate_series(0, a.replicas - 1) as r (replica)
     where not kirby.is_paused(a.id)
       and not exists (select from kirby.run l
                        where l.deployment_id = a.id and l.canary = a.canary and l.replica = r.replica
                          and l.status in ('queued', 'starting', 'running'))
     order by a.id, a.canary, r.replica
  loop
    begin
      perform kirby.queue_run(v_row.id, 'daemon', 'kirby', null, v_row.replica,
                              p_version => case when v_row.canary then v_row.version end, p_canary => v_row.canary);
      v_changes := v_changes + 1;
    exception when unique_violation then
      null;  -- another planner was faster
    end;
  end loop;

  for v_row in
    select r.id, case when p.paused then 'paused by an exception'
                   when r.canary then 'the canary has ended' else 'fewer replicas are deployed' end as reason
      from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     cross join lateral (select r.replica is not null and kirby.is_paused(d.id) as paused) p
     where r.cancel_at is null and r.status in ('queued', 'starting', 'running')
       and case when p.paused then true
             when r.canary then r.version is distinct from d.canary_version or r.replica >= d.canary_replicas
             else r.replica >= v.replicas end
     order by r.id
       for update of r skip locked
  loop
    perform kirby.cancel_run(v_row.id, v_row.reason, 'kirby');
    v_changes := v_changes + 1;
  end loop;
  return v_changes + kirby.roll_daemons();
end;
$$;
