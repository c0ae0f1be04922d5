-- Look at every mark whose time has come; returns how many that were. Only rows that are due are read. One that was
-- missed opens an incident that names the stage at which it is late; one that could not be met on purpose (a pause, a
-- calendar, a cancelled run) is void. An outage of Kirby itself is noticed here first, so that what was late by it says so.
create or replace function kirby.watch_deadlines()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := kirby.now();  -- a volatile function in a condition would keep it from its index
  v_deadline kirby.deadline;
  v_next     timestamptz;
  v_status   text;
  v_count    integer := 0;
begin
  perform kirby.keep_pulse();
  for v_deadline in
    select * from kirby.deadline
     where status = 'open' and due_at <= v_now
     order by due_at limit 2000
       for update skip locked
  loop
    v_count := v_count + 1;
    if v_deadline.tick_at > '-infinity' then
      v_status := case v_deadline.kind when 'start' then kirby.look_at_start(v_deadline)
                    else kirby.look_at_finish(v_deadline) end;
      update kirby.deadline set status = v_status, closed_at = v_now
       where deployment_id = v_deadline.deployment_id and kind = v_deadline.kind and subject = v_deadline.subject
         and tick_at = v_deadline.tick_at;
    else
      v_next := case v_deadline.kind
                  when 'start' then kirby.look_at_replica(v_deadline)
                  when 'heartbeat' then kirby.look_at_heartbeat(v_deadline)
                  else kirby.look_at_output(v_deadline) end;
      update kirby.deadline set due_at = v_next
       where deployment_id = v_deadline.deployment_id and kind = v_deadline.kind and subject = v_deadline.subject
         and tick_at = v_deadline.tick_at;
    end if;
  end loop;
  perform kirby.watch_flapping();
  return v_count;
end;
$$;
