-- To be called last in a transaction that writes for the runs of a supervisor: until it ends they
-- cannot be given to others. Raises KB005 if they were, so that a fenced one that comes back writes
-- nothing. Last, because this lock keeps the supervisor from renewing its lease.
create or replace function kirby.hold_supervisor(p_supervisor_id uuid)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform from kirby.supervisor where id = p_supervisor_id and ended_at is null for share;
  if not found then
    perform kirby.fail('KB005', 'this supervisor lost its lease: its runs were given to others');
  end if;
end;
$$;
