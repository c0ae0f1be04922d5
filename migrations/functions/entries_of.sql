-- These keys of a state as they were: the newest version of each at or below a position, and recorded by a moment, if
-- it has a value; by key. Each is looked up from its newest end in the order of the primary key: to sort its versions
-- would be to read all of them, and how many they are the planner does not know.
create or replace function kirby.entries_of(p_state_id integer, p_keys text[], p_to bigint, p_when timestamptz)
  returns table (key text, version bigint, value jsonb, "position" bigint, run_id bigint, recorded_at timestamptz)
  language plpgsql
  stable
  set jit = off
  set enable_sort = off
  set enable_bitmapscan = off
  set enable_seqscan = off
  set plan_cache_mode = force_custom_plan
as $$
begin
  return query
    select k.key, m.version, m.value, m.position, m.run_id, m.recorded_at
      from (select distinct u.key collate "C" as key from unnest(p_keys) as u (key)) k
     cross join lateral (
           select * from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = k.key and m.position <= p_to
              and (p_when is null or m.recorded_at <= p_when)
            order by m.position desc limit 1) m
     where m.op = 'set'
     order by k.key;
end;
$$;
