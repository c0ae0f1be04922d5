-- So many failures in a row that trying on helps nobody: pause the job here for an hour; then it runs once, and if that
-- fails as well, another hour begins. A pause that is in force already is left as it is; that a pause cannot be made never
-- keeps the end of a run from being recorded.
create or replace function kirby.pause_failing(p_run kirby.run, p_failures integer)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_now timestamptz := kirby.now();
begin
  if exists (select from kirby.exceptions_of(p_run.deployment_id, v_now) x where x.effect in ('pause', 'manual')) then
    return;
  end if;
  perform kirby.add_exception(jsonb_build_object(
            'environment_id', p_run.environment_id, 'scope', 'job',
            'target', (select j.name from kirby.deployment d join kirby.job j on j.id = d.job_id
                        where d.id = p_run.deployment_id),
            'effect', 'pause', 'from_at', v_now, 'until_at', v_now + interval '1 hour', 'on_return', 'run_once',
            'reason', format('%s failures in a row, the last one is run %s', p_failures, p_run.id)), 'kirby');
exception when others then
  raise warning 'deployment % could not be paused: %', p_run.deployment_id, sqlerrm;
end;
$$;
