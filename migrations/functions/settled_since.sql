-- The messages of these keys, and those at these positions, that a subscription settled since a rewind of keys moved it.
create or replace function kirby.settled_since(
  p_rewind kirby.rewind,
  p_subscription kirby.subscription,
  p_keys text[],
  p_alone bigint[]
)
  returns setof bigint
  language sql
  volatile
as $$
  select m.position
    from kirby.rewind_lane l
    join kirby.cursor c on c.subscription_id = l.subscription_id and c.lane = l.lane
   cross join lateral (select array(select kirby.undone_in(p_subscription, l.lane, 0, c.position)) as list) n
    join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = l.lane and m.position <= c.position
                        and (m.position > l.upto or m.position in (
                              select u.position from kirby.rewind_unsettled u
                               where u.rewind_id = p_rewind.id and u.subscription_id = p_subscription.id))
   where l.rewind_id = p_rewind.id and l.subscription_id = p_subscription.id
     and (m.key = any (p_keys) or m.key is null and m.position = any (p_alone))
     and not m.position = any (n.list) and not kirby.is_gone(m);
$$;
