-- Marks that were closed a month ago are forgotten; what they were is in the log. Returns how many.
create or replace function kirby.forget_deadlines()
  returns integer
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    delete from kirby.deadline
     where ctid = any (array(select l.ctid from kirby.deadline l
                              where l.status <> 'open' and l.closed_at < (select kirby.now() - interval '30 days')
                              order by l.closed_at limit 50000))
    returning 1)
  select count(*)::integer from gone;
$$;
