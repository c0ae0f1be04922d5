-- A message that was delivered by itself is done, or given up. If a range that covers it is still in a
-- worker's hands, the range may come again: then it stays noted as done until the range is settled. The
-- lock on that claim makes sure that whoever settles it forgets the note, or that it is gone by now. So it does
-- when its lane was moved back behind it, and will come to it.
create or replace function kirby.close_due(p_subscription kirby.subscription, p_position bigint)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_due kirby.due;
begin
  select * into v_due from kirby.due d
   where d.subscription_id = p_subscription.id and d.position = p_position;
  perform from kirby.claim c
    where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id)
      and c.lane = v_due.lane and c.kind = 'range'
      and p_position between c.first and c.last
      for update;
  if found or exists (
    select from kirby.cursor n
     where n.subscription_id = p_subscription.id and n.lane = v_due.lane and n.position < p_position
  ) then
    update kirby.due d
       set reason = 'done', due_at = 'infinity', parked_at = null, error = null, payload = null
     where d.subscription_id = p_subscription.id and d.position = p_position;
  else
    delete from kirby.due d
     where d.subscription_id = p_subscription.id and d.position = p_position;
  end if;
  perform kirby.free_key(p_subscription, v_due.key);
end;
$$;
