-- End the canary of a deployment: its version becomes the deployed one (p_promote), whose replicas are then
-- replaced one after the other, or it is taken back. Returns the version that is deployed now.
-- KB002: no such deployment. KB008: it has no canary.
create or replace function kirby.end_canary(
  p_deployment_id integer,
  p_promote boolean,
  p_actor text,
  p_reason text default ''
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployment  kirby.deployment;
  v_job         text;
  v_environment text;
  v_version     integer;
  v_run_id      bigint;
begin
  select * into v_deployment from kirby.deployment where id = p_deployment_id for no key update;
  if not found then
    perform kirby.fail('KB002', format('there is no deployment %s', p_deployment_id));
  end if;
  select name into v_job from kirby.job where id = v_deployment.job_id;
  select name into v_environment from kirby.environment where id = v_deployment.environment_id;
  if v_deployment.canary_version is null then
    perform kirby.fail('KB008', format('%s has no canary in %s', v_job, v_environment));
  end if;

  v_version := case when p_promote then v_deployment.canary_version else v_deployment.version end;
  update kirby.deployment
     set version = v_version, rolling = p_promote, canary_version = null, canary_share = null, canary_replicas = 1
   where id = p_deployment_id;
  if p_promote then
    update kirby.deployment_version set deployed = true
     where deployment_id = p_deployment_id and version = v_version;
  end if;
  update kirby.subscription s set canary_share = 0
    from kirby.topic t
   where t.id = s.topic_id and t.environment_id = v_deployment.environment_id and s.name = v_job
     and s.canary_share > 0;
  for v_run_id in
    select r.id from kirby.run r
     where r.deployment_id = p_deployment_id and r.canary and r.cancel_at is null
       and r.status in ('queued', 'starting', 'running')
     order by r.id
       for no key update
  loop
    perform kirby.cancel_run(v_run_id, 'the canary has ended', p_actor);
  end loop;
  perform kirby.append_job_event(null, p_deployment_id,
                                 case when p_promote then 'job_canary_promoted' else 'job_canary_aborted' end,
                                 jsonb_build_object('version', v_deployment.canary_version), p_actor);
  perform kirby.audit(p_actor, case when p_promote then 'canary_promoted' else 'canary_aborted' end,
                      format('job/%s/%s', v_environment, v_job),
                      jsonb_build_object('version', v_deployment.version, 'canary', v_deployment.canary_version,
                                         'share', v_deployment.canary_share),
                      jsonb_build_object('version', v_version), p_reason);
  return v_version;
end;
$$;
