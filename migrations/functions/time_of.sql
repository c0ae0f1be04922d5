-- The column that says when a row of a log was recorded.
create or replace function kirby.time_of(p_log text)
  returns text
  language sql
  immutable
as $$
  select case p_log when 'log_line' then 'at' else 'recorded_at' end;
$$;
