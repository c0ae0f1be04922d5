-- Claim one message that is due to be delivered by itself; NULL if there is none.
create or replace function kirby.take_due(
  p_subscription kirby.subscription,
  p_run_id bigint,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_due   kirby.due;
  v_claim kirby.claim;
begin
  update kirby.due d set due_at = 'infinity', attempt = d.attempt + 1
   where d.subscription_id = p_subscription.id
     and d.position = (select n.position from kirby.due n
                        where n.subscription_id = p_subscription.id
                          and n.parked_at is null and n.due_at <= kirby.now()
                        order by n.due_at limit 1
                          for update skip locked)
  returning d.* into v_due;
  if not found then
    return null;
  end if;
  insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, lease_until, attempt, kind)
  values (p_subscription.id, v_due.lane, v_due.position, v_due.position, v_due.position,
          p_run_id, kirby.now() + p_lease, v_due.attempt, 'due')
  returning * into v_claim;
  return v_claim;
end;
$$;
