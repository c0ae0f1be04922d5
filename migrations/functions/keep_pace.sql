-- Note where the log is, once a minute, for a day.
create or replace function kirby.keep_pace()
  returns void
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into kirby.pace (at, position)
  select kirby.now(), s.last_value from kirby.position s
   where not exists (select from kirby.pace p where p.at > kirby.now() - interval '50 seconds');
  delete from kirby.pace where at < kirby.now() - interval '1 day';
$$;
