-- Trigger: keep state_entry, the latest version of each key, in step with the mutations.
-- KB004: somebody else wrote the first version of a key at the same moment.
create or replace function kirby.project_state_entries()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_written bigint;
begin
  insert into kirby.state_entry as e
         (state_id, key, version, op, value, position, run_id, updated_at)
  select n.state_id, n.key, n.version, n.op, n.value, n.position, n.run_id, n.recorded_at
    from new_mutations n
      on conflict (state_id, key) do update
     set version = excluded.version, op = excluded.op, value = excluded.value,
         position = excluded.position, run_id = excluded.run_id, updated_at = excluded.updated_at
   where e.version = excluded.version - 1;
  get diagnostics v_written = row_count;

  if v_written <> (select count(*) from new_mutations) then
    perform kirby.fail('KB004', 'a key of a state was written by somebody else at the same moment');
  end if;
  return null;
end;
$$;

create or replace trigger project_state_entries
  after insert on kirby.state_mutation
  referencing new table as new_mutations
  for each statement execute function kirby.project_state_entries();
