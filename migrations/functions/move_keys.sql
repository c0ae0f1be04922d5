-- Deliver the messages of some keys again, each by itself, in the order of each key: what of them was not settled
-- joins in its turn (parked ones too), and what comes after waits for them (kirby.hold_back). Claims that hold
-- such a key are given back with another fence; other keys go on. The caller has stopped the claims.
create or replace function kirby.move_keys(p_rewind kirby.rewind, p_subscription kirby.subscription)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_ordered boolean := p_subscription.mode = 'ordered';
begin
  insert into kirby.rewind_lane (rewind_id, subscription_id, lane, after, until, upto, passed, delivered, messages, replays)
  select p_rewind.id, p_subscription.id, c.lane, c.position, c.position, c.position, c.delivered, c.delivered,
         count(*), count(*)
    from kirby.key_parts(p_subscription, p_rewind.after, p_rewind.until, p_rewind.keys) k
    join kirby.cursor c on c.subscription_id = p_subscription.id and c.lane = k.lane
   where not k.undone
   group by c.lane, c.position, c.delivered;
  insert into kirby.due (subscription_id, position, lane, key, due_at, reason, rewind_id)
  select p_subscription.id, k.position, k.lane, k.key,
         case when v_ordered then 'infinity' else kirby.now() end, case when v_ordered then 'waiting' else 'ready' end,
         p_rewind.id
    from kirby.key_parts(p_subscription, p_rewind.after, p_rewind.until, p_rewind.keys) k
   where not k.undone
      on conflict (subscription_id, position) do update
     set reason = excluded.reason, due_at = excluded.due_at, rewind_id = excluded.rewind_id, attempt = 0;
  if not v_ordered then
    return;
  end if;

  delete from kirby.claim c
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id) and c.kind = 'due'
     and exists (select from kirby.due d
                  where d.subscription_id = c.subscription_id and d.position = c.first and d.key = any (p_rewind.keys));
  update kirby.claim c
     set lease_until = '-infinity', fence = default, attempt = c.attempt - c.suspect::integer
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id) and c.kind = 'range'
     and exists (select from kirby.message m
                  where m.topic_id = p_subscription.topic_id and m.lane = c.lane
                    and m.position between c.first and c.last and m.key = any (p_rewind.keys));
  update kirby.due d set reason = 'waiting', due_at = 'infinity', parked_at = null
   where d.subscription_id = p_subscription.id and d.key = any (p_rewind.keys)
     and (d.reason not in ('done', 'waiting', 'delayed') or d.parked_at is not null);
  perform kirby.free_key(p_subscription, k.key) from unnest(p_rewind.keys) as k (key);
end;
$$;
