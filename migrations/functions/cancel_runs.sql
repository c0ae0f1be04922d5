-- Cancel all runs of a deployment that have not ended; returns how many were not being cancelled already.
create or replace function kirby.cancel_runs(p_deployment_id integer, p_reason text, p_actor text)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_run   record;
  v_count integer := 0;
begin
  for v_run in
    select r.id from kirby.run r
     where r.deployment_id = p_deployment_id and r.replica is null and r.cancel_at is null
       and r.status in ('queued', 'starting', 'running')
     order by r.id
       for no key update
  loop
    perform kirby.cancel_run(v_run.id, p_reason, p_actor);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;
