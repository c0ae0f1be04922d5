-- Of the states that a topic feeds, over whatever lies between (as far as the flow is counted; the first step only through
-- these jobs), the one from which compaction removed versions furthest behind a position: so not all is known that was made
-- there of messages behind it. Its name, from which position on all is known, and the end of the last day that is
-- compacted. No row: there is none.
create or replace function kirby.compacted_below(p_topic_id integer, p_after bigint, p_jobs text[] default null)
  returns table (state_id integer, name text, exact_from bigint, upto timestamptz)
  language plpgsql
  stable
as $$
declare
  v_environment smallint := (select t.environment_id from kirby.topic t where t.id = p_topic_id);
begin
  if not exists (select from kirby.compaction c join kirby.state s on s.id = c.state_id
                  where s.environment_id = v_environment and c.exact_from > p_after) then
    return;
  end if;
  return query
    with recursive edge as materialized (
      select distinct f.source_id, f.job, f.kind, f.place_id
        from kirby.flow f where f.environment_id = v_environment and f.source_id is not null
       union  -- what has parents, and does not say where they are from
      select distinct 0, null, x.kind, x.place_id
        from kirby.parent_index x where x.source_id = 0 and x.kind = 'mutation' and x.highest > p_after
    ), reached as (
      select e.kind, e.place_id from edge e
       where e.source_id in (p_topic_id, 0) and (p_jobs is null or e.job is null or e.job = any (p_jobs))
       union
      select n.kind, n.place_id
        from reached r
       cross join lateral (
             select e.kind, e.place_id from edge e where r.kind = 'message' and e.source_id = r.place_id
              union all
             select 'message', t.id
               from kirby.state s join kirby.topic t on t.environment_id = s.environment_id and t.name = 'state.' || s.name
              where r.kind = 'mutation' and s.id = r.place_id) n
    )
    select s.id, s.name, c.exact_from, (select max(d.day) from kirby.compacted_day d where d.state_id = s.id)
      from reached r
      join kirby.state s on r.kind = 'mutation' and s.id = r.place_id and s.environment_id = v_environment
      join kirby.compaction c on c.state_id = s.id and c.exact_from > p_after
     order by c.exact_from desc, s.name
     limit 1;
end;
$$;
