-- The day (UTC) that a moment belongs to (kirby.day_end).
create or replace function kirby.day_of(p_at timestamptz)
  returns date
  language sql
  immutable
  parallel safe
as $$
  select (p_at at time zone 'UTC' - interval '1 microsecond')::date;
$$;
