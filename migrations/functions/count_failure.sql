-- A run failed. One that is tried again is no failure yet: channels that ask for retries are told, nothing else. After
-- alert_after failures in a row the deployment is failing, after pause_after its schedule is paused for an hour
-- (kirby.pause_failing), and then tried again.
create or replace function kirby.count_failure(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_version  kirby.deployment_version;
  v_failures integer;
begin
  select v.* into v_version
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_run.deployment_id;
  if kirby.is_retried(p_run, v_version) then
    perform kirby.tell_retry(p_run);
    return;
  end if;
  insert into kirby.streak as s (deployment_id, failures, last_run_id)
  values (p_run.deployment_id, 1, p_run.id)
      on conflict (deployment_id) do update
     set failures = s.failures + 1, successes = 0, last_run_id = p_run.id
  returning failures into v_failures;
  if v_failures >= v_version.alert_after then
    perform kirby.open_failing(p_run, v_failures);
  end if;
  if v_failures >= v_version.pause_after then
    perform kirby.pause_failing(p_run, v_failures);
  end if;
end;
$$;
