-- What was needed to make what lies at these positions (of messages and of mutations), over at most p_most_depth
-- steps: each once, at its least depth. A step goes to the parents, and from a mutation to all versions that it
-- was made from (kirby.versions_behind) and their parents: so a figure that was built over hundreds of versions
-- is one step from the messages that it counts. What retention removed has kind "gone" and no place. Versions before
-- which compaction removed others (kirby.is_cut) are named once more, a step on, with kind "compacted".
create or replace function kirby.ancestors(p_positions bigint[], p_most_depth integer default 16)
  returns table (kind text, place_id integer, "position" bigint, key text, version bigint, depth integer, job text)
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_front bigint[] := p_positions;
  v_seen  bigint[] := p_positions;
  v_new   record;
begin
  depth := 0;
  while cardinality(v_front) > 0 and depth <= p_most_depth loop
    with found as materialized (
      select l.kind, l.place_id, l.position, l.key, l.version, l.parents, l.headers, l.run_id, ancestors.depth as depth
        from kirby.locate(v_front) l
    ), given as materialized (
      select array_agg(f.place_id) as states, array_agg(f.key) as keys, array_agg(f.position) as positions
        from found f where f.kind = 'mutation'
    ), behind as materialized (
      select 'mutation' as kind, b.state_id as place_id, b.position, b.key, b.version, b.parents, b.headers, b.run_id,
             ancestors.depth + 1 as depth
        from given g
       cross join lateral kirby.versions_behind(g.states, g.keys, g.positions) b
       where not exists (select from unnest(v_seen) as s (position) where s.position = b.position)
    ), made as materialized (
      select * from found union all select * from behind
    )
    select array_agg(m.kind) as kinds, array_agg(m.place_id) as places, array_agg(m.position) as positions,
           array_agg(m.key) as keys, array_agg(m.version) as versions, array_agg(m.depth) as depths,
           array_agg(coalesce(m.headers #>> '{via,-1,0}', w.job)) as jobs,
           (select array_agg(u.parent order by p.position, u.n)
              from made p cross join lateral unnest(p.parents) with ordinality as u (parent, n)) as parents
      into v_new
      from made m
      left join (select r.id, j.name as job
                   from kirby.run r
                   join kirby.deployment d on d.id = r.deployment_id
                   join kirby.job j on j.id = d.job_id) w on w.id = m.run_id;

    return query
      select n.kind, n.place_id, n.position, n.key, n.version, n.depth, n.job
        from unnest(v_new.kinds, v_new.places, v_new.positions, v_new.keys, v_new.versions, v_new.depths, v_new.jobs)
             as n (kind, place_id, position, key, version, depth, job)
       where n.depth between 1 and p_most_depth;
    return query
      select 'gone', null::integer, f.position, null::text, null::bigint, ancestors.depth, null::text
        from unnest(v_front) as f (position)
       where ancestors.depth > 0
         and not exists (select from unnest(v_new.positions) as n (position) where n.position = f.position);

    return query
      select 'compacted', n.place_id, n.position, n.key, n.version, n.depth + 1, null::text
        from unnest(v_new.kinds, v_new.places, v_new.positions, v_new.keys, v_new.versions, v_new.depths)
             as n (kind, place_id, position, key, version, depth)
        join kirby.compaction c on c.state_id = n.place_id and c.exact_from >= n.position
       where n.kind = 'mutation' and n.depth < p_most_depth and kirby.is_cut(n.place_id, n.key, n.position);

    v_seen := v_seen || coalesce(v_new.positions, '{}');
    v_front := array(
      select distinct e.position from unnest(kirby.expand_parents(v_new.parents)) as e (position)
       where not exists (select from unnest(v_seen) as s (position) where s.position = e.position));
    depth := depth + 1;
  end loop;
end;
$$;
