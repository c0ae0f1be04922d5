-- The first key of the lock that who claims shares: 'L' in the top byte. See kirby.raise_claim_floor.
create or replace function kirby.claim_lock()
  returns integer
  language sql
  immutable
as $$
  select x'4C000000'::integer;
$$;
