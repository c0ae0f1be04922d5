-- Queue a run of a deployment at its current version (or a given one); returns its id.
-- The event carries all that the projection run needs. KB002: no such deployment.
create or replace function kirby.queue_run(
  p_deployment_id integer,
  p_cause text,
  p_actor text,
  p_tick_at timestamptz default null,
  p_replica smallint default null,
  p_delay interval default '0',
  p_attempt smallint default 1,
  p_restarts integer default 0,
  p_retry_of bigint default null,
  p_version integer default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployment kirby.deployment;
  v_run        kirby.run;
begin
  select * into v_deployment from kirby.deployment where id = p_deployment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no deployment %s', p_deployment_id));
  end if;

  insert into kirby.run (deployment_id, environment_id, version, status, cause, actor, tick_at, replica,
                         attempt, restarts, retry_of, not_before, queued_at)
  values (p_deployment_id, v_deployment.environment_id, coalesce(p_version, v_deployment.version),
          'queued', p_cause, p_actor, p_tick_at, p_replica,
          p_attempt, p_restarts, p_retry_of, kirby.now() + p_delay, kirby.now())
  returning * into v_run;
  perform kirby.append_job_event(v_run.id, p_deployment_id, 'run_queued', jsonb_strip_nulls(to_jsonb(v_run)), p_actor);
  return v_run.id;
end;
$$;
