-- How many messages of a subscription, or of one key of it, are handed out and not settled.
create or replace function kirby.in_hands(p_subscription kirby.subscription, p_key text default null)
  returns bigint
  language sql
  volatile
as $$
  select count(*)
    from kirby.claim c
    join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = c.lane
                        and m.position between c.first and c.upto
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id)
     and (p_key is null or m.key = p_key)
     and (c.kind = 'due' or not exists (
           select from kirby.due d
            where d.subscription_id = p_subscription.id and d.position = m.position));
$$;
