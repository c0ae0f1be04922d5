-- A moment as people are told it: ISO 8601, UTC, no more exact than it is.
create or replace function kirby.utc(p_at timestamptz)
  returns text
  language sql
  immutable
as $$
  select regexp_replace(to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\.000000$', '') || 'Z';
$$;
