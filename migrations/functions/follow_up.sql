-- What the end of a run brings with it: its token is revoked, its claims are free at once, what runs after its job has a
-- tick, and the next run is queued if the deployment asks for one (a daemon's replica, another attempt, a lost run).
-- A run that was lost with its host, or that ran out of memory, costs no attempt: it is run again three
-- times at the most, if its deployment says so, since it may be the one that takes its hosts down.
create or replace function kirby.follow_up(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_version kirby.deployment_version;
  v_kind    text;
  v_guilty  boolean;
begin
  update kirby.token set revoked_at = kirby.now() where run_id = p_run.id and revoked_at is null;
  v_guilty := p_run.status in ('failed', 'timed_out') and p_run.cancel_at is null;
  update kirby.claim
     set lease_until = '-infinity', fence = default,
         suspect = suspect or v_guilty, attempt = attempt - (suspect and not v_guilty)::integer
   where run_id = p_run.id and lease_until > '-infinity';

  select v.* into v_version
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_run.deployment_id;
  select j.kind into v_kind
    from kirby.deployment d join kirby.job j on j.id = d.job_id
   where d.id = p_run.deployment_id;

  if p_run.status = 'succeeded' and p_run.shadow_id is null then
    perform kirby.follow_jobs(p_run);
  end if;
  if v_kind = 'daemon' then
    perform kirby.restart_replica(p_run);
  elsif p_run.cancel_at is not null then
    return;
  elsif p_run.status = 'lost' or (p_run.status = 'failed' and p_run.out_of_memory) then
    if v_version.rerun_lost and p_run.losses < 3 then
      perform kirby.queue_run(p_run.deployment_id, 'retry', 'kirby', p_run.tick_at, null,
                              case p_run.status when 'lost' then interval '0'
                                else kirby.run_pause(v_version.retry_pause, p_run.losses + 1) end,
                              p_run.attempt, 0, p_run.id, p_run.version, (p_run.losses + 1)::smallint);
    end if;
  elsif p_run.status in ('failed', 'timed_out') and p_run.attempt < v_version.max_attempts then
    perform kirby.queue_run(p_run.deployment_id, 'retry', 'kirby', p_run.tick_at, null,
                            kirby.run_pause(v_version.retry_pause, p_run.attempt), (p_run.attempt + 1)::smallint, 0,
                            p_run.id, p_run.version, p_run.losses);
  end if;
end;
$$;
