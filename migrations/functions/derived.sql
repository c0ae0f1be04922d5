-- What was made, directly or over at most p_most_depth steps, from what lies at these positions (of messages and
-- of mutations) of an environment: each message and mutation once, at its least depth (1: directly from
-- them). What was made has one of them among its parents, or in a run of its parents; so the feed of a state
-- follows its mutations too. p_jobs: the first step only through these jobs. p_topic_id: they are messages of this
-- topic (NULL: look for children wherever there may be some).
--
-- Level by level: a child has a higher position than its parents, so each level looks at what lies above the
-- lowest of them, where kirby.parent_parts says. job: who wrote it (the newest hop of via, else the job of its
-- run; NULL: by hand, or not known).
create or replace function kirby.derived(
  p_environment_id smallint,
  p_positions bigint[],
  p_jobs text[] default null,
  p_most_depth integer default 16,
  p_topic_id integer default null
)
  returns table (kind text, place_id integer, "position" bigint, key text, depth integer, job text)
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_front   bigint[] := p_positions;
  v_sources integer[] := array[p_topic_id];
  v_seen    bigint[] := '{}';
  v_next    bigint[];
  v_places  integer[];
  v_part    record;
  v_new     record;
begin
  depth := 0;
  while cardinality(v_front) > 0 and depth < p_most_depth loop
    depth := depth + 1;
    v_next := '{}';
    v_places := '{}';
    for v_part in
      select p.* from (select min(f.position) as low, max(f.position) as high
                         from unnest(v_front) as f (position)) b
       cross join lateral kirby.parent_parts(
             p_environment_id, case when p_topic_id is not null or derived.depth > 1 then v_sources end, b.low, b.high) p
    loop
      select array_agg(c.place_id) as places, array_agg(c.position) as positions, array_agg(c.key) as keys,
             array_agg(coalesce(c.maker, w.job)) as jobs
        into v_new
        from kirby.children_in(v_part.kind, v_part.places, v_part.after, v_part.upto, v_front, case when v_part.runs then
               kirby.runs_of(v_part.kind, v_part.places, v_part.after, v_part.upto, v_front) end) c
        left join (select r.id, j.name as job
                     from kirby.run r
                     join kirby.deployment d on d.id = r.deployment_id
                     join kirby.job j on j.id = d.job_id) w on w.id = c.run_id
       where (derived.depth > 1 or p_jobs is null or coalesce(c.maker, w.job) = any (p_jobs))
         and not exists (select from unnest(v_seen) as s (position) where s.position = c.position);

      return query
        select v_part.kind, n.place_id, n.position, n.key, derived.depth, n.job
          from unnest(v_new.places, v_new.positions, v_new.keys, v_new.jobs) as n (place_id, position, key, job);
      v_next := v_next || coalesce(v_new.positions, '{}');
      if v_part.kind = 'message' then
        v_places := v_places || array(select distinct n.place_id from unnest(v_new.places) as n (place_id));
      end if;
    end loop;
    v_front := v_next;
    v_sources := v_places;
    v_seen := v_seen || v_next;
  end loop;
end;
$$;
