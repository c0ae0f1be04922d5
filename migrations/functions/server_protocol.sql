-- The version of the functions that supervisors call; it grows when a supervisor of before needs another one.
-- This schema serves supervisors of this version and of the one before it (kirby.register_supervisor), so that
-- hosts can be upgraded one after the other.
create or replace function kirby.server_protocol()
  returns integer
  language sql
  immutable
as $$
  select 2;
$$;
