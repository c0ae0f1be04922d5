-- Take or renew a named lease; returns the term, or NULL while somebody else holds it.
create or replace function kirby.take_lease(p_name text, p_holder uuid, p_lease interval default '10 seconds')
  returns bigint
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into kirby.lease as l (name, holder, until) values (p_name, p_holder, kirby.now() + p_lease)
      on conflict (name) do update
     set holder = excluded.holder, until = excluded.until,
         term = l.term + (l.holder <> excluded.holder)::integer
   where l.holder = excluded.holder or l.until <= kirby.now()
  returning term;
$$;
