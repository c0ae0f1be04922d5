-- A message that was delivered by itself is done, or given up. If a range that covers it is still in a
-- worker's hands, the range may come again: then it stays noted as done until the range is settled.
create or replace function kirby.close_due(p_subscription kirby.subscription, p_position bigint)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_key text;
begin
  delete from kirby.due d
   where d.subscription_id = p_subscription.id and d.position = p_position
     and not exists (select from kirby.claim c
                      where c.subscription_id = d.subscription_id and c.lane = d.lane
                        and c.kind = 'range' and d.position between c.first and c.last)
  returning d.key into v_key;
  if not found then
    update kirby.due d
       set reason = 'done', due_at = 'infinity', parked_at = null, error = null
     where d.subscription_id = p_subscription.id and d.position = p_position
    returning d.key into v_key;
  end if;
  perform kirby.free_key(p_subscription, v_key);
end;
$$;
