-- A text, and a number or a boolean as it is written; anything else is NULL.
create or replace function kirby.typed_text(p_value jsonb)
  returns text
  language sql
  immutable
  parallel safe
as $$
  select case when jsonb_typeof(p_value) in ('string', 'number', 'boolean') then p_value #>> '{}' end;
$$;
