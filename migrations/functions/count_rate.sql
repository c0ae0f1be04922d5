-- Book what was handed out of a subscription on its rate.
create or replace function kirby.count_rate(p_subscription kirby.subscription, p_messages bigint)
  returns void
  language sql
  volatile
as $$
  update kirby.subscription
     set rate_at = greatest(rate_at, kirby.now()) + make_interval(secs => p_messages / rate)
   where id = p_subscription.id and rate is not null;
$$;
