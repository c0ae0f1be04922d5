-- Of a claimed range, file the messages whose key is held by another one: they wait their turn. The
-- lock on what holds a key makes sure of it: whoever is just settling that message either sees the
-- waiting ones afterwards and frees them, or has freed the key before we look. A delayed one holds
-- nothing, but it is locked with the others, since it may be handed out at this moment (kirby.put_off).
create or replace function kirby.hold_back(p_subscription kirby.subscription, p_claim kirby.claim)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_keys text[];
begin
  if p_subscription.mode <> 'ordered' or not exists (
    select from kirby.due d where d.subscription_id = p_subscription.id and d.key is not null
  ) then
    return;
  end if;

  select array_agg(distinct held.key) into v_keys
    from (select d.key, d.reason from kirby.due d
           where d.subscription_id = p_subscription.id
             and d.reason <> 'done'
             and (d.parked_at is null or p_subscription.on_failure = 'block')
             and d.key in (select m.key from kirby.message m
                            where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
                              and m.position between p_claim.first and p_claim.last)
           order by d.position
             for update) held
   where held.reason <> 'delayed';

  insert into kirby.due (subscription_id, position, lane, key, due_at, reason)
  select p_subscription.id, m.position, m.lane, m.key, 'infinity', 'waiting'
    from kirby.message m
   where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
     and m.position between p_claim.first and p_claim.last
     and m.key = any (v_keys)
      on conflict do nothing;
end;
$$;
