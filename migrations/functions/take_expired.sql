-- Take over a claim whose lease has ended, or that was given back. It is suspect if its holder died in
-- the middle of it; a host that was lost, a cancelled run and a release are not the messages' fault.
create or replace function kirby.take_expired(
  p_subscription kirby.subscription,
  p_run_id bigint,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_id    bigint;
  v_claim kirby.claim;
begin
  loop
    select e.id into v_id from kirby.claim e
     where e.subscription_id = p_subscription.id
       and e.id >= kirby.first_claim(p_subscription.id) and e.lease_until <= kirby.now()
     order by e.lease_until limit 1
       for update skip locked;
    exit when not found;
    update kirby.claim c
       set fence = default,
           suspect = c.suspect or (c.lease_until > '-infinity' and not kirby.host_is_lost(c.run_id)),
           attempt = c.attempt
                     - (c.suspect and c.lease_until > '-infinity' and kirby.host_is_lost(c.run_id))::integer,
           run_id = p_run_id,
           holder = current_setting('kirby.holder', true),
           lease_until = kirby.now() + p_lease
     where c.id = v_id
    returning c.* into v_claim;
    v_claim := kirby.open_claim(p_subscription, v_claim);
    exit when v_claim.id is not null;
  end loop;
  return v_claim;
end;
$$;
