-- The end of the day (UTC) that a moment belongs to. Midnight belongs to the day that it ends, so that what was recorded
-- by then is whole days.
create or replace function kirby.day_end(p_at timestamptz)
  returns timestamptz
  language sql
  immutable
  parallel safe
as $$
  select (date_trunc('day', p_at at time zone 'UTC' - interval '1 microsecond') + interval '1 day') at time zone 'UTC';
$$;
