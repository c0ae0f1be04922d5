-- A daemon's replica ended by itself. It is started again, and how often it ended early before counts as failures in a
-- row; one whose host died is not to blame. It is well again when it stays up (kirby.look_at_replica), which is looked at soon.
create or replace function kirby.watch_replica_end(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_version  kirby.deployment_version;
  v_failures integer := p_run.restarts + 1;
begin
  if p_run.cancel_at is not null or p_run.status in ('cancelled', 'lost')
     or (p_run.status = 'succeeded' and p_run.restarts < 3) then  -- a worker may end when there is nothing to do
    return;
  end if;
  select v.* into v_version
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_run.deployment_id;
  insert into kirby.streak as s (deployment_id, failures, last_run_id)
  values (p_run.deployment_id, v_failures, p_run.id)
      on conflict (deployment_id) do update
     set failures = excluded.failures, successes = 0, last_run_id = p_run.id;
  update kirby.deadline set due_at = least(due_at, kirby.now() + interval '30 seconds')
   where deployment_id = p_run.deployment_id and kind = 'start' and subject = p_run.replica::text
     and tick_at = '-infinity';
  if v_failures >= v_version.alert_after then
    perform kirby.open_failing(p_run, v_failures);
  end if;
  if v_failures >= v_version.pause_after then
    perform kirby.pause_failing(p_run, v_failures);
  end if;
end;
$$;
