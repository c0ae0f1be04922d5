-- A bound of positions as it was before it was announced by its low 31 bits, against a position read at about that
-- time: at most 2^27 above it, else below. See kirby.horizon.
create or replace function kirby.rebuilt(p_bound bigint, p_high bigint)
  returns bigint
  language sql
  immutable
  parallel safe
as $$
  select p_high + (p_bound - p_high % 2147483648 + 4160749568) % 2147483648 - 2013265920;
$$;
