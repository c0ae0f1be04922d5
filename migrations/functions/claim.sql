-- Claim the next batch of a subscription: one row, or none if there is nothing to do. Nobody else gets
-- these messages until the claim is settled, released, or its lease ends.
--
-- p_flush: false if this call is a transaction of its own, which then does not wait for the disk. A claim
-- that is lost in a crash was never made: whoever settles it flushes it first. KB002, KB003, KB007.
create or replace function kirby.claim(
  p_subscription_id integer,
  p_limit integer default 100,
  p_lease interval default '30 seconds',
  p_flush boolean default true
)
  returns table (claim_id bigint, fence bigint, attempt smallint, positions bigint[], keys text[],
                 payloads json, headers json, recorded_at timestamptz[],
                 run_ids bigint[], parents json, dense boolean)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  -- Plans are kept, and some tables are empty when they are made and full of what is gone later.
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off
as $$
declare
  v_own   record;
  v_batch kirby.batch;
  v_claim kirby.claim;
begin
  if not p_flush then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  v_own := kirby.own_subscription(p_subscription_id);
  v_claim := kirby.take(v_own.subscription, v_own.run_id, p_limit, p_lease);
  if v_claim.id is not null then
    v_batch := kirby.batch_of(v_claim, (v_own.subscription).topic_id);
    return query select (v_batch).*;
  end if;
end;
$$;
