-- Whether a message that is due is not to be handed out after all: it has expired; its key has as many in
-- hands as it may have, or as many a second; or it comes out of turn (it was delayed, or comes back from
-- the parked ones) and its key is in somebody's hands, or held by another. From then on it holds its key
-- itself, or waits for what does, so that its turn comes. (So does one that is over the rate of its key.)
create or replace function kirby.put_off(p_subscription kirby.subscription, p_due kirby.due)
  returns boolean
  language plpgsql
  volatile
as $$
declare
  v_soon constant timestamptz := kirby.now() + interval '50 milliseconds';
  v_holder bigint;
  v_slot   timestamptz;
begin
  if kirby.has_expired(p_subscription.topic_id, p_due.lane, p_due.position) then
    perform kirby.close_due(p_subscription, p_due.position);
    return true;
  elsif p_due.key is null then
    return false;
  elsif p_subscription.mode = 'shared' then
    if kirby.in_hands(p_subscription, p_due.key) >= p_subscription.key_in_flight then
      update kirby.due set reason = 'waiting', due_at = 'infinity'
       where subscription_id = p_subscription.id and position = p_due.position;
      return true;
    end if;
  elsif p_due.reason in ('delayed', 'queued', 'limited') then
    -- One at a time of each key. The ranges first: what failed of one that was settled since holds the key.
    if not pg_try_advisory_xact_lock(hashtextextended(p_due.key, p_subscription.id)) or exists (
      select from kirby.claim c
        join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = c.lane
                            and m.position between c.first and c.upto and m.key = p_due.key
       where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id)
         and c.kind = 'range'
         and not exists (select from kirby.due d
                          where d.subscription_id = p_subscription.id and d.position = m.position)
    ) then
      update kirby.due
         set due_at = v_soon, reason = case when p_due.reason = 'limited' then 'limited' else 'queued' end
       where subscription_id = p_subscription.id and position = p_due.position;
      return true;
    end if;

    select d.position into v_holder from kirby.due d
     where d.subscription_id = p_subscription.id and d.key = p_due.key and d.position <> p_due.position
       and d.reason not in ('done', 'waiting', 'delayed')
       and (d.reason not in ('queued', 'limited') or d.position < p_due.position)
       and (d.parked_at is null or p_subscription.on_failure = 'block')
     order by d.position limit 1;
    if found then
      -- With its lock, whoever finishes the holder will see that this one waits.
      perform from kirby.due d
        where d.subscription_id = p_subscription.id and d.position = v_holder
          and d.reason not in ('done', 'waiting', 'delayed')
          and (d.parked_at is null or p_subscription.on_failure = 'block')
          for share skip locked;
      if found then
        update kirby.due set reason = 'waiting', due_at = 'infinity'
         where subscription_id = p_subscription.id and position = p_due.position;
      else
        update kirby.due
           set due_at = v_soon, reason = case when p_due.reason = 'limited' then 'limited' else 'queued' end
         where subscription_id = p_subscription.id and position = p_due.position;
      end if;
      return true;
    end if;
  end if;

  if p_subscription.key_rate is not null and p_due.reason in ('delayed', 'queued', 'failed') then
    v_slot := kirby.next_slot(p_subscription, p_due.key);
    if v_slot > kirby.now() + make_interval(secs => greatest(0, 0.25 - 1 / p_subscription.key_rate)) then
      update kirby.due set reason = 'limited', due_at = v_slot
       where subscription_id = p_subscription.id and position = p_due.position;
      return true;
    end if;
  end if;
  return false;
end;
$$;
