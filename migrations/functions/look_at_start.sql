-- What became of a tick whose run had to have started by now; the status of its mark. A run that failed before it
-- started, with no other attempt to come, is told as failing, not twice.
create or replace function kirby.look_at_start(p_deadline kirby.deadline)
  returns text
  language plpgsql
  volatile
as $$
declare
  v_tick    kirby.tick;
  v_run     kirby.run;
  v_started timestamptz;
begin
  select * into v_tick from kirby.tick where deployment_id = p_deadline.deployment_id and at = p_deadline.tick_at;
  if kirby.is_waived(v_tick) then
    return 'void';
  end if;
  v_run := kirby.run_of_tick(v_tick);
  select min(r.started_at) into v_started
    from kirby.run r
   where r.deployment_id = v_tick.deployment_id and r.id >= v_tick.run_id and r.tick_at = v_tick.at;
  if v_started is not null then
    return case when v_started <= p_deadline.due_at then 'met' else 'missed' end;
  elsif v_run.status in ('skipped', 'cancelled') then
    return 'void';
  elsif v_run.status in ('failed', 'lost', 'timed_out') then
    return 'missed';
  elsif v_run.not_before > kirby.now() and kirby.is_at_rest(v_tick.deployment_id, kirby.now(), array['pause', 'manual']) then
    return 'void';
  end if;
  perform kirby.miss_start(p_deadline, v_tick, v_run);
  return 'missed';
end;
$$;
