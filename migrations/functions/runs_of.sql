-- The names (kirby.run_names) of the runs among the parents in a part of the log that have one of these positions
-- in them; NULL: none.
create or replace function kirby.runs_of(
  p_kind text,
  p_places integer[],
  p_after bigint,
  p_upto bigint,
  p_positions bigint[]
)
  returns text[]
  language plpgsql
  stable
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_low  bigint;
  v_high bigint;
  v_runs bigint[];
begin
  select min(p.position), max(p.position) into v_low, v_high from unnest(p_positions) as p (position);
  select array_agg(d.parent order by r.first, r.last, d.parent desc) into v_runs
    from (select distinct c.parents[i] as first, c.parents[i + 1] as last
            from (select m.parents from kirby.message m
                   where p_kind = 'message' and m.topic_id = any (p_places)
                     and m.position > p_after and m.position <= p_upto and 0 > any (m.parents)
                   union all
                  select m.parents from kirby.state_mutation m
                   where p_kind = 'mutation' and m.state_id = any (p_places)
                     and m.position > p_after and m.position <= p_upto and 0 > any (m.parents)) c
           cross join lateral generate_subscripts(c.parents, 1) as i
           where c.parents[i + 1] < 0 and c.parents[i] <= v_high and -c.parents[i + 1] >= v_low) r
   cross join lateral (values (r.first), (r.last)) as d (parent);
  if v_runs is null then
    return null;
  end if;
  return (
    select array_agg(distinct r.first || (-r.last)::text)
      from kirby.runs_in(v_runs) r
     where r.position = any (p_positions));
end;
$$;
