-- The first key of the announcements of who writes to states: 'M' in the top byte. See kirby.state_horizon.
create or replace function kirby.state_lock()
  returns integer
  language sql
  immutable
as $$
  select x'4D000000'::integer;
$$;
