-- Queue a run of a deployment at its current version (or a given one); returns its id. The event carries all
-- that the projection run needs. KB002: no such deployment, or version.
--
-- What the version says of concurrency is kept here, and in kirby.may_start: allow runs beside each other; queue
-- lets each wait for the one before; skip records a run that was skipped while one is queued or under way; replace
-- cancels those. default is allow (kirby.fire_ticks skips ticks). Kirby's own retries and replicas are neither
-- skipped nor do they replace anything; nor do shadows, and what is run again of one is one (kirby.start_shadow).
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
  p_version integer default null,
  p_losses smallint default 0,
  p_canary boolean default false,
  p_destination uuid default null,
  p_shadow_id integer default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployment kirby.deployment;
  v_version    kirby.deployment_version;
  v_run        kirby.run;
  v_shadow     integer := coalesce(p_shadow_id, (select r.shadow_id from kirby.run r where r.id = p_retry_of));
  v_asked      boolean := p_replica is null and (p_cause <> 'retry' or p_actor <> 'kirby') and v_shadow is null;
  v_live       bigint;
begin
  select * into v_deployment from kirby.deployment where id = p_deployment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no deployment %s', p_deployment_id));
  end if;
  select * into v_version from kirby.deployment_version v
   where v.deployment_id = p_deployment_id and v.version = coalesce(p_version, v_deployment.version);
  if not found then
    perform kirby.fail('KB002', format('this job has no version %s', coalesce(p_version, v_deployment.version)));
  end if;

  if v_asked and v_version.concurrency in ('skip', 'replace') then
    perform from kirby.deployment where id = p_deployment_id for no key update;  -- one at a time decides
    v_live := kirby.live_run(p_deployment_id);
  end if;
  if v_live is not null and v_version.concurrency = 'replace' then
    perform kirby.cancel_runs(p_deployment_id, 'replaced by a newer run', p_actor);
    v_live := null;
  end if;

  if p_cause = 'retry' and p_actor = 'kirby' and exists (select from kirby.exception_window w where w.until_at > kirby.now()) then
    -- While its job is paused it is not tried again, but after that.
    p_delay := greatest(p_delay, kirby.paused_until(p_deployment_id, kirby.now()) - kirby.now());
  end if;
  insert into kirby.run (deployment_id, environment_id, version, status, cause, actor, tick_at, replica, attempt,
                         restarts, retry_of, not_before, queued_at, priority, labels, canary, serial, turn, losses,
                         destination, ended_at, reason, shadow_id)
  select p_deployment_id, v_deployment.environment_id, v_version.version,
         case when v_live is null then 'queued' else 'skipped' end, p_cause, p_actor, p_tick_at, p_replica, p_attempt,
         p_restarts, p_retry_of, n.at + p_delay, n.at, v_version.priority, v_version.labels, p_canary,
         p_replica is null and v_version.concurrency in ('queue', 'skip', 'replace') and v_shadow is null,
         kirby.turn(n.at + p_delay, v_version.priority), p_losses, p_destination,
         case when v_live is not null then n.at end, 'run ' || v_live || ' had not ended', v_shadow
    from (select kirby.now() as at) n
  returning * into v_run;
  perform kirby.append_job_event(v_run.id, p_deployment_id, 'run_' || v_run.status,
                                 jsonb_strip_nulls(to_jsonb(v_run)), p_actor);
  return v_run.id;
end;
$$;
