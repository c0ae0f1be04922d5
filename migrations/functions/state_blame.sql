-- Who gave each part of a key's value its value: version, run, job, release, and the messages it was made of (kirby.blame).
--   select path, value, job, release, parents from kirby.state_blame('prod', 'stock', 'A4');
-- KB002.
create or replace function kirby.state_blame(environment text, name text, key text)
  returns table (path text, value jsonb, version bigint, "position" bigint, run_id bigint, job text, release text,
                 parents bigint[], recorded_at timestamptz, exact boolean)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select * from kirby.blame(kirby.state_named($1, $2), $3);
$$;
