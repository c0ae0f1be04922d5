-- Let the next waiting message of a key be delivered, unless something before it still holds the key.
-- To be called after a change, as a statement of its own (it needs a fresh snapshot). What holds the key
-- is locked: whoever is just finishing it either finds the waiting message afterwards, or is waited for.
create or replace function kirby.free_key(p_subscription kirby.subscription, p_key text)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_next bigint;
begin
  select min(d.position) into v_next from kirby.due d
   where d.subscription_id = p_subscription.id and d.key = p_key and d.reason = 'waiting';
  if v_next is null then
    return;
  end if;

  perform from kirby.due d
    where d.subscription_id = p_subscription.id and d.key = p_key and d.position < v_next
      and d.reason <> 'done' and (d.parked_at is null or p_subscription.on_failure = 'block')
    order by d.position
      for share;
  if not found then
    update kirby.due set due_at = kirby.now(), reason = 'ready'
     where subscription_id = p_subscription.id and position = v_next;
  end if;
end;
$$;
