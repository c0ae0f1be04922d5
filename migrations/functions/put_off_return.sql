-- The run that an exception promised for its end, or a tick that it held, cannot run now: it runs when what holds it is
-- over, or as soon as may be. A tick of the schedule's own at that very instant is skipped, the promise stays.
create or replace function kirby.put_off_return(p_tick kirby.tick, p_reason text, p_held_by integer[])
  returns void
  language plpgsql
  volatile
as $$
declare
  v_now timestamptz := kirby.now();
begin
  if p_tick.own and not p_tick.again then
    perform kirby.append_job_event(null, p_tick.deployment_id, 'tick_skipped', jsonb_strip_nulls(jsonb_build_object(
              'at', p_tick.at, 'reason', p_reason, 'exceptions', nullif(to_jsonb(p_held_by), '[]'))), 'kirby');
  end if;
  update kirby.tick
     set own = own and again, exceptions = '{}', excluded = null,
         fire_at = coalesce((select max(x.until_at) from kirby.exceptions_of(p_tick.deployment_id, v_now, v_now) x
                              where x.exception_id = any (p_held_by)), v_now)
   where deployment_id = p_tick.deployment_id and at = p_tick.at;
end;
$$;
