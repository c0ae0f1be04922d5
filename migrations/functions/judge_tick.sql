-- Whether a tick is held back, as the rows stand: reason is null if it may run. Exceptions are those in force at its
-- instant (one that comes back after an exception: when it is due again); the most restrictive one decides. A tick that
-- begins later than its instant (jitter, an outage) does not begin while its job is paused, either.
-- held_by: the exceptions that hold it. p_now: when it begins, at the earliest.
create or replace function kirby.judge_tick(
  p_tick kirby.tick, p_tz text, p_now timestamptz default null, out reason text, out held_by integer[]
)
  language plpgsql
  volatile
as $$
declare
  v_now       timestamptz := coalesce(p_now, kirby.now());
  v_at        timestamptz := case when p_tick.again or p_tick.returns <> '{}' and not p_tick.own
                             then coalesce(p_tick.fire_at, p_tick.at) else p_tick.at end;
  v_exception record;
  v_replaced  boolean := false;
  v_is_named  boolean := p_tick.own or p_tick.again or p_tick.returns <> '{}' or p_tick.after_run is not null;
begin
  held_by := '{}';
  if p_tick.excluded is not null then
    reason := 'excluded by the calendar ' || p_tick.excluded;
    return;
  end if;
  for v_exception in
    select * from kirby.exceptions_of(p_tick.deployment_id, v_at, kirby.now())
     union all
    select * from kirby.exceptions_of(p_tick.deployment_id, v_now, kirby.now()) x
     where v_now > v_at and x.effect in ('pause', 'manual')
  loop
    continue when v_exception.effect = 'schedule' and v_replaced;
    if v_exception.effect = 'schedule' then
      v_replaced := true;
      v_is_named := v_exception.exception_id = any (p_tick.exceptions) or p_tick.again or p_tick.returns <> '{}';
      if v_is_named then
        continue;
      end if;
    end if;
    continue when v_exception.effect = 'skip' and kirby.ticks_since(p_tick, v_exception.from_at) >= v_exception.most
      or v_exception.effect = 'rate' and not kirby.is_too_often(p_tick, v_exception.most, v_exception.per);
    reason := kirby.why_held(v_exception.effect, v_exception.exception_id, v_exception.until_at, v_exception.reason,
                             v_exception.schedules, v_exception.most, v_exception.per, p_tz);
    held_by := array[v_exception.exception_id];
    return;
  end loop;
  if not v_is_named then
    reason := 'the exception that asked for it has ended';
  end if;
end;
$$;
