-- File messages that a subscription settled, to be delivered again by themselves, in the order of their key. What of
-- these keys was not settled joins in its turn (parked ones too), and claims that hold such a key are given back with
-- another fence. The caller has stopped the claims.
create or replace function kirby.file_replays(
  p_rewind_id bigint,
  p_subscription kirby.subscription,
  p_keys text[],
  p_positions bigint[]
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_ordered boolean := p_subscription.mode = 'ordered';
begin
  insert into kirby.due (subscription_id, position, lane, key, due_at, reason, rewind_id)
  select p_subscription.id, m.position, m.lane, m.key,
         case when v_ordered and m.key is not null then 'infinity' else kirby.now() end,
         case when v_ordered and m.key is not null then 'waiting' else 'ready' end, p_rewind_id
    from kirby.message m
   where m.topic_id = p_subscription.topic_id and m.position = any (p_positions)
      on conflict (subscription_id, position) do update
     set reason = excluded.reason, due_at = excluded.due_at, rewind_id = excluded.rewind_id, attempt = 0;
  if not v_ordered then
    return;
  end if;

  delete from kirby.claim c
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id) and c.kind = 'due'
     and exists (select from kirby.due d
                  where d.subscription_id = c.subscription_id and d.position = c.first and d.key = any (p_keys));
  update kirby.claim c
     set lease_until = '-infinity', fence = default, attempt = c.attempt - c.suspect::integer
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id) and c.kind = 'range'
     and exists (select from kirby.message m
                  where m.topic_id = p_subscription.topic_id and m.lane = c.lane
                    and m.position between c.first and c.last and m.key = any (p_keys));
  update kirby.due d set reason = 'waiting', due_at = 'infinity', parked_at = null
   where d.subscription_id = p_subscription.id and d.key = any (p_keys)
     and (d.reason not in ('done', 'waiting', 'delayed') or d.parked_at is not null);
  perform kirby.free_key(p_subscription, k.key) from unnest(p_keys) as k (key);
end;
$$;
