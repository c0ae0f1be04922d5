-- Forget results, and notes of what was taken back, whose messages retention removed; at most p_limit of each.
-- Returns how many. Also what the index by time has of dropped partitions, a month later.
create or replace function kirby.forget_removed(p_limit integer default 5000)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_results   integer;
  v_retracted integer;
begin
  delete from kirby.result d
   using (select r.topic_id, r.task
            from kirby.topic_retention t
           cross join lateral (
                 select r.topic_id, r.task from kirby.result r
                  where r.topic_id = t.topic_id and r.task <= t.gone_to and r.position <= t.gone_to
                  order by r.task limit p_limit) r
           where t.gone_to > 0
           limit p_limit) gone
   where d.topic_id = gone.topic_id and d.task = gone.task;
  get diagnostics v_results = row_count;

  delete from kirby.retracted d
   using (select r.topic_id, r.position
            from kirby.topic_retention t
           cross join lateral (
                 select r.topic_id, r.position from kirby.retracted r
                  where r.topic_id = t.topic_id and r.position <= t.gone_to
                  order by r.position limit p_limit) r
           where t.gone_to > 0
           limit p_limit) gone
   where d.topic_id = gone.topic_id and d.position = gone.position;
  get diagnostics v_retracted = row_count;

  delete from kirby.time_index i
   where i.position < (select min(p.first) from kirby.partitions('message') p)
     and i.latest < kirby.now() - interval '30 days';
  return v_results + v_retracted;
end;
$$;
