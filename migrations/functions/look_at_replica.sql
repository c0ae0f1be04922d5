-- Whether a daemon's replica runs; when to look again. One that has been up for half a minute is well, and ends what was
-- wrong when all others are; one that has not started within start_by (10 min) is missed. One that keeps failing is told as
-- that, one that is paused is silent on purpose.
create or replace function kirby.look_at_replica(p_deadline kirby.deadline)
  returns timestamptz
  language plpgsql
  volatile
as $$
declare
  v_now        timestamptz := kirby.now();
  v_deployment kirby.deployment;
  v_version    kirby.deployment_version;
  v_run        kirby.run;
  v_patience   interval;
  v_stage      jsonb;
  v_open       boolean;
begin
  select * into v_deployment from kirby.deployment where id = p_deadline.deployment_id;
  select * into v_version from kirby.deployment_version
   where deployment_id = v_deployment.id and version = v_deployment.version;
  v_patience := make_interval(secs => coalesce(v_version.start_by, 600));
  if kirby.is_at_rest(v_deployment.id, v_now, array['pause', 'manual']) then
    return v_now + v_patience;
  end if;
  v_open := exists (select from kirby.incident i
                     where i.environment_id = v_deployment.environment_id and i.deployment_id = v_deployment.id
                       and i.status = 'open' and i.kind in ('missed', 'failing'));
  select * into v_run from kirby.run
   where deployment_id = v_deployment.id and replica = p_deadline.subject::smallint and not canary
     and status in ('queued', 'starting', 'running');
  if v_run.id is null and p_deadline.closed_at is null then  -- it may just be about to be queued
    update kirby.deadline set closed_at = v_now
     where deployment_id = v_deployment.id and kind = 'start' and subject = p_deadline.subject and tick_at = '-infinity';
    return v_now + v_patience;
  elsif v_run.id is not null and p_deadline.closed_at is not null then
    update kirby.deadline set closed_at = null
     where deployment_id = v_deployment.id and kind = 'start' and subject = p_deadline.subject and tick_at = '-infinity';
  end if;
  if v_run.status = 'running' then
    if not v_open then
      return v_now + v_patience;
    elsif v_version.replicas <= (select count(*) from kirby.run r
                                  where r.deployment_id = v_deployment.id and r.replica is not null and not r.canary
                                    and r.status = 'running' and r.started_at <= v_now - interval '30 seconds') then
      update kirby.streak set failures = 0, successes = successes + 1 where deployment_id = v_deployment.id;
      perform kirby.resolve_incidents(v_deployment.id, v_deployment.environment_id, array['missed', 'failing'],
                                      'all replicas stay up');
    end if;
    return v_now + interval '15 seconds';
  elsif v_run.restarts > 0 then
    return v_now + interval '15 seconds';
  elsif v_run.not_before + v_patience > v_now then
    return v_run.not_before + v_patience;
  end if;
  v_stage := kirby.stage_of(v_run);
  if v_run.id is null then
    v_stage := v_stage || '{"text": "nobody has queued it"}';
  end if;
  if not exists (select from kirby.incident i
                  where i.environment_id = v_deployment.environment_id and i.deployment_id = v_deployment.id
                    and i.status = 'open' and i.kind = 'missed') then
    perform kirby.open_incident(
      v_deployment.environment_id, v_deployment.id, 'missed', '',
      format('replica %s does not run: %s', p_deadline.subject, v_stage ->> 'text'),
      v_stage || jsonb_build_object('replica', p_deadline.subject::integer, 'due_at', p_deadline.due_at), v_run.id);
  end if;
  return v_now + interval '15 seconds';
end;
$$;
