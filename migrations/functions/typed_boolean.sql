-- True or false; anything else is NULL.
create or replace function kirby.typed_boolean(p_value jsonb)
  returns boolean
  language sql
  immutable
  parallel safe
as $$
  select case when jsonb_typeof(p_value) = 'boolean' then p_value::boolean end;
$$;
