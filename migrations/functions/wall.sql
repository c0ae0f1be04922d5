-- A time on the wall of a zone, in UTC if this PostgreSQL does not know the zone (its tables may be older than ours).
create or replace function kirby.wall(p_at timestamptz, p_tz text)
  returns text
  language plpgsql
  stable
as $$
begin
  return to_char(p_at at time zone p_tz, 'YYYY-MM-DD HH24:MI:SS ') || p_tz;
exception when invalid_parameter_value then
  return to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC');
end;
$$;
