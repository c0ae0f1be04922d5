-- The incident of a deployment whose runs fail: the same while they fail in the same way.
create or replace function kirby.open_failing(p_run kirby.run, p_failures integer)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_error  text := kirby.last_error(p_run.id);
  v_reason text := coalesce(p_run.reason, replace(p_run.status, '_', ' '));
begin
  perform kirby.open_incident(
    p_run.environment_id, p_run.deployment_id, 'failing', kirby.fingerprint(concat_ws(': ', v_reason, nullif(v_error, ''))),
    concat_ws(': ', v_reason, nullif(v_error, '')),
    jsonb_build_object(
      'stage', case when p_run.started_at is null then 'not started' else 'run' end, 'status', p_run.status,
      'reason', v_reason, 'error', nullif(v_error, ''), 'failures', p_failures, 'version', p_run.version,
      'attempt', nullif(p_run.attempt, 1), 'replica', p_run.replica,
      'host', (select s.host from kirby.supervisor s where s.id = p_run.supervisor_id)),
    p_run.id);
end;
$$;
