-- Run an ended run again; returns the new run's id. At p_version; else at the deployed version (p_current) or the
-- one it had (not p_current); p_current null: as the deployed version says (rerun). KB002: no such run, or
-- version. KB008: it has not ended, or it is a daemon's (those are kept alive).
create or replace function kirby.retry_run(
  p_run_id bigint,
  p_actor text,
  p_current boolean default null,
  p_version integer default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run     kirby.run;
  v_current boolean := p_current;
begin
  select * into v_run from kirby.run where id = p_run_id;
  if not found then
    perform kirby.fail('KB002', format('there is no run %s', p_run_id));
  elsif v_run.ended_at is null then
    perform kirby.fail('KB008', format('run %s is %s: only an ended run can be run again', p_run_id, v_run.status));
  elsif v_run.replica is not null then
    perform kirby.fail('KB008', format('run %s is a daemon''s replica: Kirby keeps it alive by itself', p_run_id));
  end if;
  if v_current is null then
    select v.rerun = 'current' into v_current
      from kirby.deployment d
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where d.id = v_run.deployment_id;
  end if;
  return kirby.queue_run(v_run.deployment_id, 'retry', p_actor, v_run.tick_at, p_retry_of => p_run_id,
                         p_version => coalesce(p_version, case when not v_current then v_run.version end));
end;
$$;
