-- Steps 2 of kirby.horizon for all topics at once: the lowest bound that is announced for each, rebuilt
-- against p_high, which has to be read in a statement before (step 1).
create or replace function kirby.announced(p_high bigint)
  returns table (topic_id integer, low bigint)
  language sql
  volatile
as $$
  select (k.classid::bigint - kirby.topic_lock(0))::integer,
         min(kirby.rebuilt(k.objid::bigint, p_high))
    from pg_locks k
   where k.locktype = 'advisory'
     and k.database = (select oid from pg_database where datname = current_database())
     and k.classid::bigint between kirby.topic_lock(0) and kirby.topic_lock(16777215)
     and k.objsubid = 2
   group by 1;
$$;
