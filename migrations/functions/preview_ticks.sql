-- What will become of the next ticks of a deployment, as exceptions and calendars stand, in the order in which they
-- begin: each is judged as when it is due, after those before it. It marks them as if they had been: roll it back.
create or replace function kirby.preview_ticks(p_deployment_id integer, p_tz text, p_until timestamptz)
  returns table (at timestamptz, starts timestamptz, note text, reason text, exceptions integer[])
  language plpgsql
  volatile
as $$
declare
  v_tick kirby.tick;
  v_held record;
begin
  for v_tick in
    select * from kirby.tick t
     where t.deployment_id = p_deployment_id and t.status = 'planned' and t.at > kirby.now() and t.at <= p_until
     order by coalesce(t.fire_at, t.at), t.at
  loop
    select * into v_held from kirby.judge_tick(v_tick, p_tz, coalesce(v_tick.fire_at, v_tick.at));
    if v_held.reason is null and v_tick.returns <> '{}' and not v_tick.own and v_tick.exceptions = '{}'
       and not kirby.is_missed(v_tick) then
      continue;  -- nothing will have been held: nothing to make up
    end if;
    update kirby.tick t
       set status = case when v_held.reason is null then 'queued' else 'skipped' end, held_by = v_held.held_by,
           reason = v_held.reason
     where t.deployment_id = p_deployment_id and t.at = v_tick.at;
    at := v_tick.at;
    starts := coalesce(v_tick.fire_at, v_tick.at);
    note := v_tick.note;
    reason := v_held.reason;
    exceptions := v_held.held_by;
    return next;
  end loop;
end;
$$;
