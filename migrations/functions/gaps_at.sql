-- Keys of a state of which it is not known for certain what they were at a position, or at a moment, since compaction
-- removed versions around it: by key, with the versions that stayed before it (NULL: none) and behind it. What
-- kirby.entries_at says of them is the one before. Of these keys, or all with a prefix. At the end of a day (UTC) none.
create or replace function kirby.gaps_at(
  p_state_id integer,
  p_position bigint,
  p_when timestamptz,
  p_keys text[] default null,
  p_prefix text default ''
)
  returns table (key text, before_version bigint, before_position bigint, before_at timestamptz,
                 after_version bigint, after_position bigint, after_at timestamptz)
  language plpgsql
  stable
  set jit = off
  set enable_sort = off  -- kirby.entries_of
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_low  bigint;
  v_high bigint;
begin
  -- What was removed is followed on its day by one that stayed. That one lies here, behind the moment, and by its
  -- number more versions were between it and the last one before than there are.
  select min(d.first), max(d.kept) into v_low, v_high
    from kirby.compacted_day d
   where d.state_id = p_state_id
     and (d.first <= p_position and d.kept > p_position or d.day = kirby.day_end(p_when));
  if v_low is null then
    return;
  end if;
  return query
    select k.key, b.version, b.position, b.recorded_at, a.version, a.position, a.recorded_at
      from (select m.key, case when p_position is null then max(m.position) else min(m.position) end as position
              from kirby.state_mutation m
             where m.state_id = p_state_id and m.position >= v_low and m.position <= v_high
               and (p_keys is null or m.key = any (p_keys)) and starts_with(m.key, p_prefix)
               and (m.position > p_position
                    or m.recorded_at > p_when and kirby.day_end(m.recorded_at) = kirby.day_end(p_when))
             group by m.key) k
      join kirby.state_mutation e on e.state_id = p_state_id and e.key = k.key and e.position = k.position
      left join lateral (
           select * from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = k.key and (m.position <= p_position or m.recorded_at <= p_when)
            order by m.position desc limit 1) b on true
     cross join lateral (
           select * from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = k.key and m.position > coalesce(b.position, 0)
            order by m.position limit 1) a
     where e.version - coalesce(b.version, 0) > (
           select count(*) from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = k.key
              and m.position > coalesce(b.position, 0) and m.position <= e.position)
     order by k.key;
end;
$$;
