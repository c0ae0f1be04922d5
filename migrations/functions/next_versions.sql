-- The version of each of these keys that follows the one at its position, as far as it lies at or below p_upto.
create or replace function kirby.next_versions(p_state_id integer, p_keys text[], p_positions bigint[], p_upto bigint)
  returns table (key text, next bigint, next_at timestamptz)
  language plpgsql
  stable
  set jit = off
  set enable_sort = off  -- kirby.entries_of
  set enable_bitmapscan = off
  set enable_seqscan = off
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_low bigint := (select min(p.position) from unnest(p_positions) as p (position));
begin
  return query
    select g.key, n.position, n.recorded_at
      from unnest(p_keys, p_positions) as g (key, position)
     cross join lateral (
           select m.position, m.recorded_at from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = g.key and m.position > g.position
              and m.position > v_low and m.position <= p_upto
            order by m.position limit 1) n;
end;
$$;
