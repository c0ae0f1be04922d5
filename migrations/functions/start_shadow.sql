-- Begin a shadow: a run of another version of a job that handles what these topics have above p_after, up to p_until.
-- It is one run, whatever the job's replicas, and neither waits for other runs nor do they wait for it. Without a version
-- nothing is run: somebody does it by hand, with KIRBY_SHADOW. Audited. Returns its id. KB001, KB002.
create or replace function kirby.start_shadow(
  p_deployment_id integer,
  p_version integer,
  p_topics text[],
  p_after bigint,
  p_until bigint,
  p_actor text
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place  record;
  v_shadow kirby.shadow;
begin
  if p_after >= p_until then
    perform kirby.fail('KB001', format('there is nothing after position %s up to %s', p_after, p_until));
  end if;
  select d.environment_id, j.name into v_place
    from kirby.deployment d join kirby.job j on j.id = d.job_id where d.id = p_deployment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no deployment %s', p_deployment_id));
  end if;
  insert into kirby.shadow (environment_id, deployment_id, job, version, topics, after, until, actor)
  values (v_place.environment_id, p_deployment_id, v_place.name, p_version, p_topics, p_after, p_until, p_actor)
  returning * into v_shadow;
  if p_version is not null then
    v_shadow.run_id := kirby.queue_run(p_deployment_id, 'manual', p_actor, p_version => p_version, p_shadow_id => v_shadow.id);
    update kirby.shadow set run_id = v_shadow.run_id where id = v_shadow.id;
  end if;
  perform kirby.audit(p_actor, 'shadow_started', 'shadow/' || v_shadow.id, p_after => to_jsonb(v_shadow));
  return v_shadow.id;
end;
$$;
