-- Let a version of a daemon serve a share of the keys of its streams, beside the deployed one; called again, change
-- the share. Its streams are the subscriptions in that environment that bear the job's name: of their lanes so many
-- belong to the canary (kirby.canary_lanes).
-- KB001: no daemon, nothing deployed, no share between 0 and 1, a stream with one lane. KB002: no such version.
-- KB004: another version is the canary.
create or replace function kirby.set_canary(
  p_deployment_id integer,
  p_version integer,
  p_share double precision,
  p_actor text,
  p_reason text default ''
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployment  kirby.deployment;
  v_job         kirby.job;
  v_environment text;
  v_replicas    smallint;
  v_topic       text;
begin
  select * into v_deployment from kirby.deployment where id = p_deployment_id for no key update;
  select * into v_job from kirby.job where id = v_deployment.job_id;
  select name into v_environment from kirby.environment where id = v_deployment.environment_id;
  select v.replicas into v_replicas from kirby.deployment_version v
   where v.deployment_id = p_deployment_id and v.version = v_deployment.version;
  if v_job.kind <> 'daemon' then
    perform kirby.fail('KB001', format('%s is a %s job: a canary is for daemons, which read streams', v_job.name, v_job.kind));
  elsif v_replicas is null then
    perform kirby.fail('KB001', format('%s is not deployed in %s yet: there is nothing that a canary could stand beside', v_job.name, v_environment));
  elsif p_share is null or p_share <= 0 or p_share >= 1 then
    perform kirby.fail('KB001', format('a canary serves a share above 0%% and below 100%%, not %s', p_share));
  elsif v_deployment.canary_version <> p_version then
    perform kirby.fail('KB004', format('version %s is the canary of %s already: promote or abort it first', v_deployment.canary_version, v_job.name));
  elsif not exists (select from kirby.deployment_version v where v.deployment_id = p_deployment_id and v.version = p_version) then
    perform kirby.fail('KB002', format('%s has no version %s in %s', v_job.name, p_version, v_environment));
  end if;

  select t.name into v_topic
    from kirby.subscription s join kirby.topic t on t.id = s.topic_id
   where s.name = v_job.name and t.environment_id = v_deployment.environment_id and t.lanes / t.bands < 2
   order by t.name limit 1;
  if found then
    perform kirby.fail('KB001', format('topic %s has one lane, so its keys cannot be shared out: kirby topic lanes %s 8 --env %s', v_topic, v_topic, v_environment));
  end if;

  update kirby.subscription s set canary_share = p_share
    from kirby.topic t
   where t.id = s.topic_id and t.environment_id = v_deployment.environment_id and s.name = v_job.name;
  update kirby.deployment
     set canary_version = p_version, canary_share = p_share, rolling = false,
         canary_replicas = greatest(1, round(p_share * v_replicas))
   where id = p_deployment_id;
  perform kirby.append_job_event(null, p_deployment_id, 'job_canary_set',
                                 jsonb_build_object('version', p_version, 'share', p_share), p_actor);
  perform kirby.audit(p_actor, 'canary_set', format('job/%s/%s', v_environment, v_job.name),
                      jsonb_build_object('version', v_deployment.canary_version, 'share', v_deployment.canary_share),
                      jsonb_build_object('version', p_version, 'share', p_share), p_reason);
end;
$$;
