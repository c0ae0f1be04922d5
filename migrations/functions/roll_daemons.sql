-- Go on with deploys that are rolled out: of each such deployment one replica of another version is asked to end, and
-- comes back at the deployed one. Only while none is on its way, and those that have come back stay up for five
-- seconds: a version that does not leaves the others as they are. Returns how many were asked.
create or replace function kirby.roll_daemons()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run   record;
  v_count integer := 0;
begin
  for v_run in
    select distinct on (d.id) r.id, d.version
      from kirby.deployment d
      join kirby.run r on r.deployment_id = d.id and r.replica is not null and not r.canary
                      and r.status in ('queued', 'starting', 'running') and r.version <> d.version
     where d.rolling
       and not exists (
         select from kirby.run o
          where o.deployment_id = d.id and o.replica is not null and not o.canary
            and o.status in ('queued', 'starting', 'running')
            and (o.cancel_at is not null
                 or (o.version = d.version
                     and (o.status <> 'running' or o.started_at > kirby.now() - interval '5 seconds'))))
     order by d.id, r.status = 'running', r.replica
  loop
    perform kirby.cancel_run(v_run.id, format('replaced by version %s', v_run.version), 'kirby');
    v_count := v_count + 1;
  end loop;

  update kirby.deployment d set rolling = false
   where d.rolling
     and not exists (select from kirby.run r
                      where r.deployment_id = d.id and r.replica is not null and not r.canary
                        and r.status in ('queued', 'starting', 'running') and r.version <> d.version);
  return v_count;
end;
$$;
