-- The version of the functions that workers call. It grows when an old worker could no longer work.
create or replace function kirby.protocol()
  returns integer
  language sql
  immutable
as $$
  select 1;
$$;
