-- Whether a message that is due is not to be handed out after all: it has expired; or it comes out of
-- turn (it was delayed, or comes back from the parked ones) and its key is held by another, or lies in a
-- range that is in somebody's hands. From then on it holds its key itself, so that its turn comes.
create or replace function kirby.put_off(p_subscription kirby.subscription, p_due kirby.due)
  returns boolean
  language plpgsql
  volatile
as $$
begin
  if exists (select from kirby.message m join kirby.topic t on t.id = m.topic_id
              where m.topic_id = p_subscription.topic_id and m.lane = p_due.lane
                and m.position = p_due.position and t.sifted and m.expires_at <= kirby.now()) then
    perform kirby.close_due(p_subscription, p_due.position);
    return true;
  elsif p_subscription.mode <> 'ordered' or p_due.key is null
        or p_due.reason not in ('delayed', 'queued') then
    return false;
  elsif p_due.reason = 'delayed' and exists (
    select from kirby.due d
     where d.subscription_id = p_subscription.id and d.key = p_due.key and d.position <> p_due.position
       and d.reason not in ('done', 'delayed')
       and (d.parked_at is null or p_subscription.on_failure = 'block')
  ) then
    update kirby.due set reason = 'waiting', due_at = 'infinity'
     where subscription_id = p_subscription.id and position = p_due.position;
    return true;
  elsif exists (
    select from kirby.claim c
      join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = c.lane
                          and m.position between c.first and c.upto and m.key = p_due.key
     where c.subscription_id = p_subscription.id and c.kind = 'range' and m.position <> p_due.position
  ) then
    update kirby.due set reason = 'queued', due_at = kirby.now() + interval '50 milliseconds'
     where subscription_id = p_subscription.id and position = p_due.position;
    return true;
  end if;
  return false;
end;
$$;
