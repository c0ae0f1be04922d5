-- The database clock, the only clock of Kirby (DESIGN promise 7). Tests lay another body to fake it.
create or replace function kirby.now()
  returns timestamptz
  language sql
  volatile
as $$
  select clock_timestamp();
$$;
