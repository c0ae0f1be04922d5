-- Queue the run of a tick. Of one that comes after exceptions that ask for it (catch_up), the ticks that they held
-- become due again, with the instants that they were for, and run one after the other.
create or replace function kirby.run_tick(p_tick kirby.tick)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_cause text := case when p_tick.after_run is not null then 'after' when p_tick.own or p_tick.exceptions <> '{}' then 'schedule'
                    else 'return' end;
begin
  if p_tick.returns <> '{}' and kirby.catch_up(p_tick) > 0 and v_cause = 'return' then
    delete from kirby.tick where deployment_id = p_tick.deployment_id and at = p_tick.at;
    return;
  end if;
  update kirby.tick set status = 'queued', reason = null, held_by = '{}',
         run_id = kirby.queue_run(p_tick.deployment_id, v_cause, 'kirby', p_tick.at)
   where deployment_id = p_tick.deployment_id and at = p_tick.at;
end;
$$;
