-- The messages and mutations at these positions, each once. A position alone has only a coarse index: a few are
-- looked up in every lane of every topic, by key; many in one pass over the log from the lowest to the highest.
create or replace function kirby.locate(p_positions bigint[])
  returns table (kind text, place_id integer, lane smallint, "position" bigint, key text, version bigint, op text,
                 parents bigint[], headers jsonb, run_id bigint, recorded_at timestamptz)
  language plpgsql
  stable
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_low   bigint;
  v_high  bigint;
  v_count bigint;
  v_found bigint;
begin
  select count(distinct p.position), min(p.position), max(p.position) into v_count, v_low, v_high
    from unnest(p_positions) as p (position);
  if v_count * (select sum(t.lanes) from kirby.topic t) <= 20000 then
    return query
      select 'message', m.topic_id, m.lane, m.position, m.key, null::bigint, null::text, m.parents, m.headers,
             m.run_id, m.recorded_at
        from (select distinct u.position from unnest(p_positions) as u (position)) p
       cross join kirby.topic t
       cross join lateral generate_series(0, t.lanes - 1) as l (lane)
       cross join lateral (
             select * from kirby.message m
              where m.topic_id = t.id and m.lane = l.lane and m.position = p.position
              offset 0) m;
  else
    return query
      select 'message', m.topic_id, m.lane, m.position, m.key, null::bigint, null::text, m.parents, m.headers,
             m.run_id, m.recorded_at
        from kirby.message m
       where m.position between v_low and v_high and m.position + 0 = any (p_positions);
  end if;

  get diagnostics v_found = row_count;
  if v_found < v_count then
    return query
      select 'mutation', m.state_id, null::smallint, m.position, m.key, m.version, m.op, m.parents, m.headers,
             m.run_id, m.recorded_at
        from kirby.state_mutation m
       where m.position between v_low and v_high and m.position + 0 = any (p_positions);
  end if;
end;
$$;
