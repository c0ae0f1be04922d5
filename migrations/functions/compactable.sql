-- Versions of a state in a part of the log (behind p_after, up to p_upto) that compaction removes: the next version of
-- their key, at position next, is of the same day. And those that it stops at (blocked): of days after p_cut, or to
-- be removed while the next version lies behind p_hold. What lies behind the first of these is left for later. A version
-- of a clock that was ahead, with older ones behind it, stays, and stops nothing.
create or replace function kirby.compactable(
  p_state_id integer,
  p_after bigint,
  p_upto bigint,
  p_cut timestamptz,
  p_hold bigint
)
  returns table ("position" bigint, key text, recorded_at timestamptz, next bigint, blocked boolean)
  language plpgsql
  stable
  set jit = off
  set enable_seqscan = off
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_last record;  -- the last version of each key in this part, whose next one lies behind it
  v_sure bigint := (select coalesce(max(t.position), 0) from kirby.moment t  -- behind it is one that is old enough
                     where t.state_id = p_state_id and t.at <= p_cut);
begin
  return query
    select m.position, m.key, m.recorded_at, m.next, coalesce(m.day > p_cut or m.next > p_hold, false)
      from (select n.*, kirby.day_end(n.recorded_at) as day
              from (select o.position, o.key, o.recorded_at, lead(o.position) over key as next,
                           lead(o.recorded_at) over key as next_at,
                           max(o.position) filter (where kirby.day_end(o.recorded_at) <= p_cut) over () as old
                      from kirby.state_mutation o
                     where o.state_id = p_state_id and o.position > p_after and o.position <= p_upto
                    window key as (partition by o.key order by o.position)) n) m
     where case when m.day > p_cut then m.position > greatest(v_sure, m.old) else kirby.day_end(m.next_at) = m.day end;

  select array_agg(o.key) as keys, array_agg(o.position) as positions, array_agg(o.at) as at into v_last
    from (select m.key, max(m.position) as position, (array_agg(m.recorded_at order by m.position desc))[1] as at
            from kirby.state_mutation m
           where m.state_id = p_state_id and m.position > p_after and m.position <= p_upto
           group by m.key) o
   where kirby.day_end(o.at) <= p_cut;
  return query
    select l.position, l.key, l.at, n.next, n.next > p_hold
      from unnest(v_last.keys, v_last.positions, v_last.at) as l (key, position, at)
      join kirby.next_versions(p_state_id, v_last.keys, v_last.positions, kirby.position_by(p_state_id, p_cut)) n
        on n.key = l.key
     where kirby.day_end(n.next_at) = kirby.day_end(l.at);
end;
$$;
