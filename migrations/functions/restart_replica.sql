-- Queue the next run of a daemon's replica. At once when the end was asked for or was not its fault;
-- otherwise after a back-off that grows while the replica keeps ending within half a minute.
create or replace function kirby.restart_replica(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_restarts integer := 0;
  v_delay    interval := '0';
begin
  if p_run.status not in ('lost', 'cancelled') and p_run.cancel_at is null then
    if p_run.started_at is null or p_run.ended_at - p_run.started_at < interval '30 seconds' then
      v_restarts := p_run.restarts + 1;
    end if;
    v_delay := kirby.backoff(v_restarts);
  end if;
  perform kirby.queue_run(p_run.deployment_id, 'daemon', 'kirby', null, p_run.replica, v_delay,
                          1::smallint, v_restarts);
end;
$$;
