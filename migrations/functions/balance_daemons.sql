-- Move daemons' replicas gently: away from supervisors that drain, and, when a host came, to where there are
-- fewer. A move is a cancelled run; the next one of that replica is for its destination (kirby.has_place). One at a
-- time for each deployment, and a tenth of all (one at least) altogether, so that what they do goes on meanwhile.
-- Returns how many were asked to move.
create or replace function kirby.balance_daemons()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_move record;
  v_left integer;
  v_done integer := 0;
begin
  select greatest(1, count(*) / 10) - count(*) filter (where kirby.is_moving(r))
    into v_left
    from kirby.run r
   where r.replica is not null and r.status in ('queued', 'starting', 'running');

  while v_done < v_left loop
    select * into v_move from kirby.next_move() limit 1;
    exit when v_move.run_id is null;
    begin
      perform kirby.record_run(v_move.run_id, 'run_cancel_requested', jsonb_strip_nulls(jsonb_build_object(
                'reason', v_move.reason, 'destination', v_move.destination)));
    exception when sqlstate 'KB008' then
      null;  -- it has just ended by itself
    end;
    v_done := v_done + 1;
  end loop;
  return v_done;
end;
$$;
