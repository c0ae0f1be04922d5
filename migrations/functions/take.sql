-- Claim what is next of a subscription for a run: what somebody left behind first; then, taking turns at
-- random so that neither starves, a message that is due by itself or a range of a lane. NULL: nothing,
-- or nothing that its limits let out now.
create or replace function kirby.take(
  p_subscription kirby.subscription,
  p_run_id bigint,
  p_limit integer,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_claim     kirby.claim;
  v_limited   boolean := kirby.is_limited(p_subscription);
  v_limit     integer := p_limit;
  v_due_first boolean := random() < 0.5;
begin
  if p_subscription.paused_at is not null then
    return null;
  end if;
  perform pg_advisory_xact_lock_shared(kirby.claim_lock(), p_subscription.id);
  v_claim := kirby.take_expired(p_subscription, p_run_id, p_lease);
  if v_claim.id is null and v_limited then
    v_limit := kirby.allowance(p_subscription, p_limit);
    if v_limit = 0 then
      return null;
    end if;
  end if;
  if v_claim.id is null and v_due_first then
    v_claim := kirby.take_due(p_subscription, p_run_id, p_lease);
  end if;
  if v_claim.id is null then
    v_claim := kirby.take_lane(p_subscription, p_run_id, v_limit, p_lease);
  end if;
  if v_claim.id is null and not v_due_first then
    v_claim := kirby.take_due(p_subscription, p_run_id, p_lease);
  end if;
  return v_claim;
end;
$$;
