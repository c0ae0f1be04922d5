-- Remove versions of keys of a state, note the days, and give snapshots that had them the versions before that stayed.
-- p_next: the positions of the next versions of their keys. Called by kirby.compact_state alone, which decided that they
-- may go; the guard of the log (kirby.refuse_removal) looks at each of them again.
create or replace function kirby.remove_versions(
  p_state_id integer,
  p_keys text[],
  p_positions bigint[],
  p_next bigint[],
  p_at timestamptz[]
)
  returns void
  language plpgsql
  volatile
  set jit = off
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_low     bigint;
  v_high    bigint;
  v_touched record;
begin
  select min(g.position), max(g.position) into v_low, v_high from unnest(p_positions) as g (position);
  insert into kirby.compacted_day as d (state_id, day, versions, first, last, kept, at)
  select p_state_id, kirby.day_end(g.at), count(*), min(g.position), max(g.position), max(g.next), kirby.now()
    from unnest(p_positions, p_next, p_at) as g (position, next, at)
   group by kirby.day_end(g.at)
      on conflict (state_id, day) do update
     set versions = d.versions + excluded.versions, first = least(d.first, excluded.first),
         last = greatest(d.last, excluded.last), kept = greatest(d.kept, excluded.kept), at = excluded.at;

  perform set_config('kirby.removing', 'state_mutation', true);
  delete from kirby.state_mutation m
   using unnest(p_keys, p_positions) as g (key, position)
   where m.state_id = p_state_id and m.key = g.key and m.position = g.position
     and m.position >= v_low and m.position <= v_high;
  perform set_config('kirby.removing', '', true);

  select array_agg(t.snapshot) as snapshots, array_agg(t.key) as keys into v_touched
    from (select distinct s.position as snapshot, g.key
            from unnest(p_keys, p_positions, p_next) as g (key, position, next)
            join kirby.state_snapshot s
              on s.state_id = p_state_id and s.position >= g.position and s.position < g.next) t;
  if v_touched.keys is not null then
    perform kirby.retake_entries(p_state_id, v_touched.snapshots, v_touched.keys);
  end if;
end;
$$;
