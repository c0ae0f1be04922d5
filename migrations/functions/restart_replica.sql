-- Queue the next run of a daemon's replica, if the deployment still has that replica and is not paused. At once when the end was
-- asked for or was not its fault; otherwise after a back-off that grows while it keeps ending within half a minute.
-- A replica of a canary comes back as one while its version is the canary; one that was moved, where it is to go.
create or replace function kirby.restart_replica(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_restarts integer := 0;
  v_delay    interval := '0';
begin
  if not exists (
    select from kirby.deployment d
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where d.id = p_run.deployment_id
       and case when p_run.canary then d.canary_version = p_run.version and p_run.replica < d.canary_replicas
             else p_run.replica < v.replicas end
  ) or kirby.is_paused(p_run.deployment_id) then
    return;
  end if;
  if p_run.status not in ('lost', 'cancelled') and p_run.cancel_at is null then
    if p_run.started_at is null or p_run.ended_at - p_run.started_at < interval '30 seconds' then
      v_restarts := p_run.restarts + 1;
    end if;
    v_delay := kirby.backoff(v_restarts);
  end if;
  perform kirby.queue_run(p_run.deployment_id, 'daemon', 'kirby', null, p_run.replica, v_delay, 1::smallint, v_restarts,
                          p_version => case when p_run.canary then p_run.version end, p_canary => p_run.canary,
                          p_destination => case p_run.status when 'cancelled' then p_run.destination end);
end;
$$;
