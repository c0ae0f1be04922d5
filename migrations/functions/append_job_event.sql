-- Append to the log of job events; its projection is changed in the same transaction by the caller.
create or replace function kirby.append_job_event(
  p_run_id bigint,
  p_deployment_id integer,
  p_type text,
  p_data jsonb,
  p_actor text
)
  returns bigint
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into kirby.job_event (position, run_id, deployment_id, type, data, actor)
  values (nextval('kirby.position'), p_run_id, p_deployment_id, p_type, p_data, p_actor)
  returning position;
$$;
