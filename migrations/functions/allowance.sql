-- How many more messages the limits of a subscription let out now, at most p_limit. A rate is kept by
-- GCRA; what was not used may be caught up on for a quarter of a second.
create or replace function kirby.allowance(p_subscription kirby.subscription, p_limit integer)
  returns integer
  language sql
  volatile
as $$
  select greatest(0, least(
           p_limit,
           p_subscription.max_in_flight - kirby.in_hands(p_subscription),
           floor(1e-6 + greatest(1, p_subscription.rate / 4)
                 + p_subscription.rate * least(0, extract(epoch from kirby.now() - p_subscription.rate_at)::float8)
                )::integer))::integer;
$$;
