-- Of which messages of a topic these versions of states were made, directly or over topics in between (not over the
-- version before): each with the version's position. p_parents: the parents of each version, as jsonb arrays (NULL: none);
-- p_made_by: the job that wrote it. p_jobs: the first step from the topic only through these jobs (NULL: any).
-- A parent that retention has removed, if it may have been of this topic, counts as one of its messages, without a key.
create or replace function kirby.roots_in(
  p_topic_id integer,
  p_jobs text[],
  p_versions bigint[],
  p_parents jsonb[],
  p_made_by text[]
)
  returns table (version bigint, "position" bigint, key text)
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_gone_to  bigint := (kirby.earliest(p_topic_id)).position - 1;
  v_versions bigint[] := p_versions;
  v_parents  jsonb[] := p_parents;
  v_made_by  text[] := p_made_by;
  v_up       record;
  v_roots    record;
begin
  for v_depth in 1 .. 16 loop
    select array_agg(f.version) as versions, array_agg(e.parent) as parents, array_agg(f.job) as jobs,
           min(e.parent) as low, max(e.parent) as high
      into v_up
      from (select u.version, u.job, array(select jsonb_array_elements_text(u.parents)::bigint) as parents
              from unnest(v_versions, v_parents, v_made_by) as u (version, parents, job)
             where jsonb_typeof(u.parents) = 'array') f
     cross join lateral unnest(kirby.expand_parents(f.parents)) as e (parent);
    exit when v_up.low is null;

    select array_agg(m.position) as positions, array_agg(m.key) as keys into v_roots
      from kirby.message m
     where m.topic_id = p_topic_id and m.position between v_up.low and v_up.high
       and m.position + 0 = any (v_up.parents);  -- one pass and a hash, not the index by blocks
    return query
      select u.version, u.parent, r.key
        from unnest(v_up.versions, v_up.parents, v_up.jobs) as u (version, parent, job)
        join unnest(v_roots.positions, v_roots.keys) as r (position, key) on r.position = u.parent
       where p_jobs is null or u.job = any (p_jobs);

    with above as materialized (
      select u.version, u.parent from unnest(v_up.versions, v_up.parents) as u (version, parent)
        left join unnest(v_roots.positions) as r (position) on r.position = u.parent
       where r.position is null
    ), found as materialized (
      select l.position, l.parents, l.headers, l.run_id
        from kirby.locate(array(select distinct a.parent from above a)) l
    )
    select array_agg(a.version) as versions, array_agg(to_jsonb(f.parents)) as parents,
           array_agg(coalesce(f.headers #>> '{via,-1,0}', kirby.job_of(f.run_id))) as jobs,
           array_agg(a.parent) filter (where f.position is null and a.parent <= v_gone_to) as gone,
           array_agg(a.version) filter (where f.position is null and a.parent <= v_gone_to) as gone_of
      into v_up
      from above a left join found f on f.position = a.parent;
    return query
      select g.version, g.parent, null::text from unnest(v_up.gone_of, v_up.gone) as g (version, parent);
    v_versions := v_up.versions;
    v_parents := v_up.parents;
    v_made_by := v_up.jobs;
  end loop;
end;
$$;
