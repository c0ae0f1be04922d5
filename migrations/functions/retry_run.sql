-- Run an ended run again, at the version it had or at the deployed one; returns the new run's id.
-- KB002: no such run. KB008: it has not ended, or it is a daemon's (those are kept alive).
create or replace function kirby.retry_run(p_run_id bigint, p_actor text, p_current boolean default false)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run kirby.run;
begin
  select * into v_run from kirby.run where id = p_run_id;
  if not found then
    perform kirby.fail('KB002', format('there is no run %s', p_run_id));
  elsif v_run.ended_at is null then
    perform kirby.fail('KB008', format('run %s is %s: only an ended run can be run again', p_run_id, v_run.status));
  elsif v_run.replica is not null then
    perform kirby.fail('KB008', format('run %s is a daemon''s replica: Kirby keeps it alive by itself', p_run_id));
  end if;
  return kirby.queue_run(v_run.deployment_id, 'retry', p_actor, v_run.tick_at, null, '0',
                         1::smallint, 0, p_run_id, case when p_current then null else v_run.version end);
end;
$$;
