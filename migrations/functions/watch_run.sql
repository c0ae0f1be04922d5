-- A step of a run, as far as marks and incidents go: a start and a success meet the marks of its tick, a success ends
-- what was wrong, a failure that is not tried again counts. Called by kirby.record_run in the transaction of the step; what
-- is well costs an update of its mark and two look-ups.
create or replace function kirby.watch_run(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
begin
  if p_run.shadow_id is not null or p_run.status in ('queued', 'starting') or p_run.cancel_at is not null
     and p_run.ended_at is null then
    return;
  end if;
  if p_run.status = 'running' then
    perform kirby.meet_mark(p_run, 'start');
  elsif p_run.status = 'succeeded' then
    perform kirby.meet_mark(p_run, 'finish');
  elsif p_run.status = 'cancelled' and p_run.tick_at is not null then
    update kirby.deadline set status = 'void', closed_at = kirby.now()
     where deployment_id = p_run.deployment_id and kind in ('start', 'finish') and subject = ''
       and tick_at = p_run.tick_at and status = 'open';
    perform kirby.resolve_incidents(p_run.deployment_id, p_run.environment_id, array['missed', 'late'],
              format('run %s was cancelled', p_run.id), p_tick_at => p_run.tick_at);
  end if;

  if p_run.ended_at is not null then
    perform kirby.resolve_incidents(p_run.deployment_id, p_run.environment_id, array['stuck', 'retrying'],
              format('run %s ended: %s', p_run.id, replace(p_run.status, '_', ' ')), p_fingerprint => 'run ' || p_run.id);
    if p_run.replica is not null then
      perform kirby.watch_replica_end(p_run);
    elsif p_run.status = 'succeeded' then
      perform kirby.count_success(p_run);
    elsif p_run.status in ('failed', 'timed_out', 'lost') and p_run.cancel_at is null then
      perform kirby.count_failure(p_run);
    end if;
  end if;
end;
$$;
