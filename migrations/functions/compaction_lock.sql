-- The first key of the lock that keeps compaction off the states of an environment: 'O' in the top byte. Who needs old
-- versions from one statement to the next (kirby.restore_state, kirby.prepare_rewind) shares it.
create or replace function kirby.compaction_lock()
  returns integer
  language sql
  immutable
as $$
  select x'4F000000'::integer;
$$;
