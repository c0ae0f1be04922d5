-- The lane of a key. sha256 is the same on every PostgreSQL version, which its own hash functions do
-- not promise. A message without a key is spread by its position.
create or replace function kirby.lane(p_key text, p_position bigint, p_lanes smallint)
  returns smallint
  language sql
  stable  -- as convert_to is said to be: the planner inlines it only so
  parallel safe
as $$
  select (case
            when p_key is null then p_position
            else ('x' || encode(substr(sha256(convert_to(p_key, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint
          end % p_lanes)::smallint;
$$;
