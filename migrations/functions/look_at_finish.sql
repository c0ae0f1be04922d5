-- What became of a tick whose run had to have succeeded by now; the status of its mark. Running too long is told apart
-- from being late for another reason; what has failed, or has not started, is told as that.
create or replace function kirby.look_at_finish(p_deadline kirby.deadline)
  returns text
  language plpgsql
  volatile
as $$
declare
  v_tick           kirby.tick;
  v_run            kirby.run;
  v_environment_id smallint;
begin
  select * into v_tick from kirby.tick where deployment_id = p_deadline.deployment_id and at = p_deadline.tick_at;
  if kirby.is_waived(v_tick) then
    return 'void';
  end if;
  v_run := kirby.run_of_tick(v_tick);
  if v_run.status = 'succeeded' then
    return case when v_run.ended_at <= p_deadline.due_at then 'met' else 'missed' end;
  elsif v_run.status in ('skipped', 'cancelled') then
    return 'void';
  elsif v_run.ended_at is not null then
    return 'missed';
  end if;

  if exists (select from kirby.outage o where o.to_at > v_tick.at and o.from_at < p_deadline.due_at) then
    return 'missed';  -- Kirby itself was down: that is told
  end if;
  select environment_id into v_environment_id from kirby.deployment where id = p_deadline.deployment_id;
  if v_run.status = 'running' then
    perform kirby.open_incident(
      v_environment_id, p_deadline.deployment_id, 'stuck', 'run ' || v_run.id,
      format('run %s has been running for %s: it had to end within %s', v_run.id,
             kirby.span(kirby.now() - v_run.started_at), kirby.span(p_deadline.due_at - coalesce(v_tick.fire_at, v_tick.at))),
      jsonb_build_object('stage', 'running', 'cause', 'runs that take too long', 'tick_at', v_tick.at, 'local', v_tick.local,
                         'due_at', p_deadline.due_at,
                         'host', (select s.host from kirby.supervisor s where s.id = v_run.supervisor_id)),
      v_run.id);
  elsif not exists (select from kirby.incident i
                     where i.environment_id = v_environment_id and i.deployment_id = p_deadline.deployment_id
                       and i.kind = 'missed' and i.status = 'open') then
    perform kirby.open_incident(
      v_environment_id, p_deadline.deployment_id, 'late', '',
      format('the run of %s has not succeeded in time: %s', v_tick.local, kirby.stage_of(v_run) ->> 'text'),
      kirby.stage_of(v_run) || jsonb_build_object('tick_at', v_tick.at, 'local', v_tick.local, 'due_at', p_deadline.due_at),
      v_run.id);
  end if;
  return 'missed';
end;
$$;
