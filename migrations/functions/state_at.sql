-- A state as it was at a moment, or at a position of the log; now without either. All of it, one key, or the keys with a prefix:
--   select * from kirby.state_at('prod', 'stock', '2027-03-28 14:00');
--   select value from kirby.state_at('prod', 'stock', at_position => 81234, for_key => 'A4');
-- What a transaction that is open at this moment writes may still be recorded before now. KB002.
create or replace function kirby.state_at(
  environment text,
  name text,
  at_time timestamptz default null,
  at_position bigint default null,
  for_key text default null,
  prefix text default ''
)
  returns table (key text, version bigint, value jsonb, "position" bigint, run_id bigint, recorded_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select * from kirby.entries_at(kirby.state_named($1, $2), $4, $3, case when $5 is not null then array[$5] end, $6);
$$;
