-- Look after the rewinds that are not over: those that set states back go on as soon as they may, and one of which
-- nothing is left to be delivered again is done (parked messages do not keep it open). Called by the leader every
-- second, each time for every rewind, so it is right whenever it is called; returns how many are over now.
create or replace function kirby.end_rewinds()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id     bigint;
  v_ended  integer := 0;
begin
  for v_id in
    select w.id from kirby.rewind w
     where w.status in ('preparing', 'running', 'paused', 'aborting') order by w.id
  loop
    begin
      v_ended := v_ended + kirby.look_after(v_id)::integer;
    exception
      when sqlstate 'KB004' or lock_not_available or deadlock_detected then
        null;  -- somebody is at work there: the next time
    end;
  end loop;
  return v_ended;
end;
$$;
