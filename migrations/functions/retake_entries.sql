-- Give snapshots of a state the entries of keys, pair by pair, that the mutations say.
create or replace function kirby.retake_entries(p_state_id integer, p_snapshots bigint[], p_keys text[])
  returns void
  language plpgsql
  volatile
  set jit = off
  set enable_sort = off  -- kirby.entries_of
  set plan_cache_mode = force_custom_plan
as $$
begin
  delete from kirby.state_snapshot_entry e
   using unnest(p_snapshots, p_keys) as t (snapshot, key)
   where e.state_id = p_state_id and e.snapshot = t.snapshot and e.key = t.key;
  insert into kirby.state_snapshot_entry (state_id, snapshot, key, version, value, position, run_id, recorded_at)
  select p_state_id, t.snapshot, t.key, m.version, m.value, m.position, m.run_id, m.recorded_at
    from unnest(p_snapshots, p_keys) as t (snapshot, key)
   cross join lateral (
         select * from kirby.state_mutation m
          where m.state_id = p_state_id and m.key = t.key and m.position <= t.snapshot
          order by m.position desc limit 1) m
   where m.op = 'set';
end;
$$;
