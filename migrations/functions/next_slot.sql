-- Book the next moment at which a message of a key may be handed out under the key's rate (GCRA).
create or replace function kirby.next_slot(p_subscription kirby.subscription, p_key text)
  returns timestamptz
  language sql
  volatile
as $$
  insert into kirby.key_rate as r (subscription_id, key, rate_at)
  values (p_subscription.id, p_key, kirby.now() + make_interval(secs => 1 / p_subscription.key_rate))
      on conflict (subscription_id, key) do update
     set rate_at = greatest(r.rate_at, kirby.now()) + make_interval(secs => 1 / p_subscription.key_rate)
  returning rate_at - make_interval(secs => 1 / p_subscription.key_rate);
$$;
