-- Take what is done out of a claim. Returns the claim if the next piece of it is handed out now (p_more);
-- if it is not wanted, the rest is given back.
create or replace function kirby.finish(
  p_subscription kirby.subscription,
  p_claim kirby.claim,
  p_upto bigint,
  p_more boolean,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_claim kirby.claim;
begin
  if p_claim.kind = 'due' then
    delete from kirby.claim where id = p_claim.id;
    -- A failure that was filed just now has a due_at, or is parked, or waits: it stays.
    if exists (select from kirby.due d
                where d.subscription_id = p_subscription.id and d.position = p_claim.first
                  and d.due_at = 'infinity' and d.parked_at is null and d.reason <> 'waiting') then
      perform kirby.close_due(p_subscription, p_claim.first);
    end if;
  elsif p_upto >= p_claim.last or p_upto >= p_claim.upto and not p_claim.suspect then
    delete from kirby.claim where id = p_claim.id;
    perform kirby.forget_done(p_claim);
  else
    update kirby.claim
       set first = p_upto + 1, upto = greatest(upto, p_upto + 1), attempt = 1,
           lease_until = case when p_upto < p_claim.upto or p_more then kirby.now() + p_lease
                              else '-infinity' end
     where id = p_claim.id
    returning * into v_claim;
  end if;

  if p_subscription.key_in_flight is not null then
    perform kirby.free_keys(p_subscription, p_claim, p_upto);
  end if;
  if v_claim.id is null or p_upto < p_claim.upto or not p_more then
    return null;  -- it is gone, the worker has the rest of it in its hands, or wants no more
  end if;
  return kirby.open_claim(p_subscription, v_claim);
end;
$$;
