-- Write down what a state was at the position up to which mutations are counted; returns how many keys it had. To be
-- called by kirby.keep_states, or while nobody else counts.
create or replace function kirby.take_snapshot(p_state_id integer)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_at   bigint := (select c.position from kirby.mutations_counted c);
  v_keys bigint;
begin
  insert into kirby.state_snapshot_entry (state_id, snapshot, key, version, value, position, run_id, recorded_at)
  select p_state_id, v_at, e.key, e.version, e.value, e.position, e.run_id, e.recorded_at
    from kirby.entries_at(p_state_id, v_at) e;
  get diagnostics v_keys = row_count;
  insert into kirby.state_snapshot (state_id, position, keys, mutations, latest)
  select p_state_id, v_at, v_keys, c.mutations, c.latest from kirby.state_count c where c.state_id = p_state_id;
  return v_keys;
end;
$$;
