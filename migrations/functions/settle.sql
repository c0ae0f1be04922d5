-- Acknowledge a claim: what its handler published and the states it changed become visible together
-- with the acknowledgement, in one transaction, or not at all.
--
-- p_upto: the last position that is done; NULL for all that was handed out. The rest stays claimed.
-- Asked again for what is settled already (the answer was lost with a connection): nothing happens.
-- p_failures: what failed of it, as in file_failures; it is delivered again by itself, or parked.
-- p_next: claim the next batch of the subscription in the same round trip, of at most so many messages.
-- Documents as in append_messages and append_mutations. Returns the ids of the topics that were written
-- to (to be notified after the commit), and the next batch if there is one.
-- KB005: the claim was lost to another worker, nothing is written. KB003, KB004, KB007.
create or replace function kirby.settle(
  p_claim_id bigint,
  p_fence bigint,
  p_messages jsonb default '{}',
  p_mutations jsonb default '{}',
  p_upto bigint default null,
  p_next integer default 0,
  p_lease interval default '30 seconds',
  p_failures jsonb default '[]'
)
  returns table (topics integer[], claim_id bigint, fence bigint, attempt smallint, positions bigint[],
                 keys text[], payloads json, headers json, recorded_at timestamptz[],
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
  v_claim kirby.claim;
  v_own   record;
  v_new   record;
  v_next  kirby.claim;
  v_batch kirby.batch;
begin
  -- The subscription first, as whoever claims: it may be locked.
  select * into v_claim from kirby.claim c where c.id = p_claim_id and c.fence = p_fence;
  if found then
    v_own := kirby.own_subscription(v_claim.subscription_id);
    perform pg_advisory_xact_lock_shared(kirby.claim_lock(), v_claim.subscription_id);  -- against kirby.begin_rewind
    select * into v_claim from kirby.claim c where c.id = p_claim_id and c.fence = p_fence for update;
  end if;
  if not found then
    perform kirby.fail('KB005', 'the claim was lost to another worker: its lease ended before the work was done');
  elsif p_upto < v_claim.first then
    return next;
    return;
  end if;

  if p_messages <> '{}' then
    v_new := kirby.append_messages(v_own.environment_id, v_own.run_id, p_messages);
    topics := v_new.topics;
  end if;
  if p_mutations <> '{}' then
    topics := topics || kirby.append_mutations(v_own.environment_id, v_own.run_id, p_mutations);
  end if;

  if p_failures <> '[]' then
    perform kirby.file_failures(v_own.subscription, v_claim, p_failures);
  end if;

  v_next := kirby.finish(v_own.subscription, v_claim, coalesce(p_upto, v_claim.upto),
                         p_next > 0 and (v_own.subscription).paused_at is null, p_lease);
  if v_next.id is null and p_next > 0 and coalesce(p_upto, v_claim.upto) = v_claim.upto then
    v_next := kirby.take(v_own.subscription, v_own.run_id, p_next, p_lease);
  end if;

  if v_next.id is null then
    return next;
  else
    v_batch := kirby.batch_of(v_next, (v_own.subscription).topic_id);
    return query select settle.topics, (v_batch).*;
  end if;
end;
$$;
