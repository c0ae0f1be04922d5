-- A number; anything else is NULL.
create or replace function kirby.typed_number(p_value jsonb)
  returns numeric
  language sql
  immutable
  parallel safe
as $$
  select case when jsonb_typeof(p_value) = 'number' then p_value::numeric end;
$$;
