-- A whole number that fits into a bigint; anything else is NULL.
create or replace function kirby.typed_integer(p_value jsonb)
  returns bigint
  language sql
  immutable
  parallel safe
as $$
  select case when jsonb_typeof(p_value) = 'number' then
           case when p_value::numeric between -9223372036854775808 and 9223372036854775807
                 and p_value::numeric = trunc(p_value::numeric) then p_value::bigint end
         end;
$$;
