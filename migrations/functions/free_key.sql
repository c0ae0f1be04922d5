-- Let the next waiting message of a key be delivered, unless another one still holds the key; under a
-- shared subscription, as many as the key may have in hands.
-- To be called after a change, as a statement of its own (it needs a fresh snapshot). What holds the key
-- is locked: whoever is just finishing it either finds the waiting message afterwards, or is waited for.
create or replace function kirby.free_key(p_subscription kirby.subscription, p_key text)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_next bigint[];
  v_room integer := 1;
begin
  if p_key is null or p_subscription.mode = 'shared' and p_subscription.key_in_flight is null then
    return;
  elsif p_subscription.mode = 'shared' then
    v_room := greatest(0, p_subscription.key_in_flight - kirby.in_hands(p_subscription, p_key));
  end if;
  select array_agg(w.position) into v_next
    from (select d.position from kirby.due d
           where d.subscription_id = p_subscription.id and d.key = p_key and d.reason = 'waiting'
           order by d.position limit v_room) w;
  if v_next is null then
    return;
  end if;

  if p_subscription.mode = 'ordered' then
    perform from kirby.due d
      where d.subscription_id = p_subscription.id and d.key = p_key and d.position <> v_next[1]
        and d.reason not in ('done', 'waiting', 'delayed')
        and (d.parked_at is null or p_subscription.on_failure = 'block')
      order by d.position
        for share;
    if found then
      return;
    end if;
  end if;
  update kirby.due
     set reason = 'ready',
         due_at = case when p_subscription.key_rate is null then kirby.now()
                       else kirby.next_slot(p_subscription, p_key) end
   where subscription_id = p_subscription.id and position = any (v_next)
     and reason = 'waiting';  -- by now
end;
$$;
