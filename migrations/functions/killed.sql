-- What is said of a message that killed the processes that handled it.
create or replace function kirby.killed(p_claim kirby.claim)
  returns text
  language sql
  stable
as $$
  select format('the process that handled it died %s times, the last one was %s', p_claim.attempt,
                coalesce('run ' || p_claim.run_id, 'outside a deployment'));
$$;
