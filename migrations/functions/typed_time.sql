-- A day or a moment in ISO 8601, of UTC if it names no zone; anything else is NULL.
create or replace function kirby.typed_time(p_value jsonb)
  returns timestamptz
  language plpgsql
  immutable
  set timezone = 'UTC'
as $$
declare
  v_text text := p_value #>> '{}';
begin
  if jsonb_typeof(p_value) = 'string'
     and v_text ~ '^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?$' then
    return v_text::timestamptz;
  end if;
  return null;
exception when datetime_field_overflow or invalid_datetime_format or invalid_text_representation then
  return null;
end;
$$;
