-- What is not the same in a state at two moments, or positions (without a second one: now); NULL: the key had no value.
--   select * from kirby.state_diff('prod', 'stock', '2027-03-28 14:00', '2027-03-28 15:00');
-- KB002.
create or replace function kirby.state_diff(
  environment text,
  name text,
  from_time timestamptz default null,
  to_time timestamptz default null,
  from_position bigint default null,
  to_position bigint default null,
  prefix text default ''
)
  returns table (key text, before jsonb, after jsonb, before_version bigint, after_version bigint,
                 "position" bigint, recorded_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select * from kirby.differences(kirby.state_named($1, $2), $5, $3, $6, $4, $7);
$$;
