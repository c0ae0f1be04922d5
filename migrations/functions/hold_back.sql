-- Of a claimed range, file the messages whose key is held by one before them: they wait their turn. The
-- locks make sure of it. One message that waits already will be freed at a time when ours is seen, so it
-- is enough to lock that one. Otherwise what holds the key is locked: whoever is just settling it either
-- sees the waiting ones afterwards and frees them, or has freed the key before we look. Parked ones, and
-- delayed ones that are about to be due, may hold nothing, but are locked as well, since they may be handed
-- out at this moment (kirby.put_off).
create or replace function kirby.hold_back(p_subscription kirby.subscription, p_claim kirby.claim)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_keys text[];
  v_wait text[];
begin
  if p_subscription.mode <> 'ordered' or not exists (
    select from kirby.due d where d.subscription_id = p_subscription.id and d.key is not null
  ) then
    return;
  end if;

  select array_agg(distinct m.key) into v_keys
    from kirby.message m
   where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
     and m.position between p_claim.first and p_claim.last
     and exists (select from kirby.due d where d.subscription_id = p_subscription.id and d.key = m.key);
  if v_keys is null then
    return;
  end if;

  select array_agg(w.key) into v_wait
    from (select d.key from kirby.due d
           where d.subscription_id = p_subscription.id and d.reason = 'waiting'
             and d.position in (
                   select (select l.position from kirby.due l
                            where l.subscription_id = p_subscription.id and l.key = k.key and l.reason = 'waiting'
                            order by l.position desc limit 1)
                     from unnest(v_keys) as k (key))
           order by d.position
             for update) w;
  perform from kirby.due d
    where d.subscription_id = p_subscription.id and d.reason <> 'done'
      and (d.reason <> 'delayed' or d.due_at <= kirby.now() + interval '1 minute')
      and d.key = any (v_keys) and d.key <> all (coalesce(v_wait, '{}'))
    order by d.position
      for update;

  insert into kirby.due (subscription_id, position, lane, key, due_at, reason)
  select p_subscription.id, m.position, m.lane, m.key, 'infinity', 'waiting'
    from unnest(v_keys) as k (key)
   cross join lateral (
         select d.position from kirby.due d
          where d.subscription_id = p_subscription.id and d.key = k.key
            and d.reason not in ('done', 'delayed')
            and (d.parked_at is null or p_subscription.on_failure = 'block')
          order by d.position limit 1) h
    join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
                        and m.position between p_claim.first and p_claim.last
                        and m.key = k.key and m.position > h.position
      on conflict do nothing;
end;
$$;
