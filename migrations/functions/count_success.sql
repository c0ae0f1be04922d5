-- A run succeeded: that ends the row of failures, and after recover_after of them what was failing. A deployment that is
-- well has nothing to count: a look-up is all that it costs.
create or replace function kirby.count_success(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_recover_after smallint;
  v_streak        kirby.streak;
begin
  select v.recover_after into v_recover_after
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_run.deployment_id;
  select * into v_streak from kirby.streak where deployment_id = p_run.deployment_id;
  if not found or (v_streak.failures = 0 and v_streak.successes >= v_recover_after) then
    return;
  end if;
  update kirby.streak set failures = 0, successes = successes + 1, last_run_id = p_run.id
   where deployment_id = p_run.deployment_id
  returning * into v_streak;
  if v_streak.successes >= v_recover_after then
    perform kirby.resolve_incidents(p_run.deployment_id, p_run.environment_id, array['failing'],
              format('run %s succeeded', p_run.id));
  end if;
end;
$$;
