-- Messages of topics, or mutations of states, in a part of the log that have one of these positions among their
-- parents, or one of these runs (kirby.run_names). maker: the job of the newest hop of via.
--
-- One pass, and a look into a hash for each parent: the positions are a constant of the plan. (A sub-select would be
-- hashed anew for each row with several parents.)
create or replace function kirby.children_in(
  p_kind text,
  p_places integer[],
  p_after bigint,
  p_upto bigint,
  p_parents bigint[],
  p_runs text[]
)
  returns table (place_id integer, "position" bigint, key text, maker text, run_id bigint)
  language plpgsql
  stable
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
begin
  if p_kind = 'message' then
    return query
      select m.topic_id, m.position, m.key, m.headers #>> '{via,-1,0}', m.run_id
        from kirby.message m
       where m.topic_id = any (p_places) and m.position > p_after and m.position <= p_upto
         and case when m.parents[2] is null then m.parents[1] = any (p_parents)
                  else exists (select from unnest(m.parents) as p (parent) where p.parent = any (p_parents))
                    or p_runs is not null and kirby.run_names(m.parents) && p_runs end;
  else
    return query
      select m.state_id, m.position, m.key, m.headers #>> '{via,-1,0}', m.run_id
        from kirby.state_mutation m
       where m.state_id = any (p_places) and m.position > p_after and m.position <= p_upto
         and case when m.parents[2] is null then m.parents[1] = any (p_parents)
                  else exists (select from unnest(m.parents) as p (parent) where p.parent = any (p_parents))
                    or p_runs is not null and kirby.run_names(m.parents) && p_runs end;
  end if;
end;
$$;
