-- Whether a subscription has limits, which are kept by locking its row for the time of a claim.
create or replace function kirby.is_limited(p_subscription kirby.subscription)
  returns boolean
  language sql
  immutable
as $$
  select num_nonnulls(p_subscription.max_in_flight, p_subscription.rate,
                      p_subscription.key_in_flight, p_subscription.key_rate) > 0;
$$;
