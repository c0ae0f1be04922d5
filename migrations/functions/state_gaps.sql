-- The keys of which kirby.state_at is not certain at a moment or a position, since compaction removed versions around it,
-- with the versions that stayed before and behind it (kirby.gaps_at):
--   select * from kirby.state_gaps('prod', 'stock', '2027-03-28 14:00');
-- KB002.
create or replace function kirby.state_gaps(
  environment text,
  name text,
  at_time timestamptz default null,
  at_position bigint default null,
  for_key text default null,
  prefix text default ''
)
  returns table (key text, before_version bigint, before_position bigint, before_at timestamptz,
                 after_version bigint, after_position bigint, after_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select * from kirby.gaps_at(kirby.state_named($1, $2), $4, $3, case when $5 is not null then array[$5] end, $6);
$$;
