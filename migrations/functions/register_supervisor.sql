-- Register a supervisor, or renew its lease. A new one of the same folder retires its predecessors
-- there: it holds the folder's lock, so they are dead. KB005: its lease ended and others took over.
create or replace function kirby.register_supervisor(
  p_id uuid,
  p_host text,
  p_folder text,
  p_pid integer,
  p_slots integer,
  p_lease interval default '15 seconds'
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old uuid;
begin
  update kirby.supervisor set lease_until = kirby.now() + p_lease
   where id = p_id and ended_at is null;
  if found then
    return;
  elsif exists (select from kirby.supervisor where id = p_id) then
    perform kirby.fail('KB005', 'this supervisor lost its lease: its runs were given to others');
  end if;

  for v_old in
    select id from kirby.supervisor where host = p_host and folder = p_folder and ended_at is null
  loop
    perform kirby.end_supervisor(v_old, 'the supervisor was restarted');
  end loop;
  insert into kirby.supervisor (id, host, folder, pid, slots, lease_until)
  values (p_id, p_host, p_folder, p_pid, p_slots, kirby.now() + p_lease);
end;
$$;
