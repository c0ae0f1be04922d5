-- The position up to which the mutations of all states are complete: none at or below it can appear later.
-- The steps and the proof of kirby.horizon, with one lock space for all states: whoever writes a mutation
-- (kirby.append_mutations, kirby.set_back) has announced a lower bound of its positions before it takes them
-- (kirby.announce_states); the caller reads in a statement of its own after this one. KB007.
--
-- Readers of states never wait for it. It is for what is written down for good: counts, moments, snapshots.
create or replace function kirby.state_horizon()
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_high bigint;
  v_low  bigint;
begin
  perform kirby.check_isolation();

  -- step 1
  select last_value into v_high from kirby.position;

  -- step 2
  select min(kirby.rebuilt(bound, v_high))
    into v_low
    from (select objid::bigint as bound
            from pg_locks
           where locktype = 'advisory'
             and database = (select oid from pg_database where datname = current_database())
             and classid::bigint = kirby.state_lock()
             and objsubid = 2) announced;

  -- step 3 is the caller's next statement
  return least(v_high, v_low);
end;
$$;
