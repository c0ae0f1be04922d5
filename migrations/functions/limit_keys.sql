-- Of a range that was just claimed, file what the limits of its key do not let out yet: what is over the
-- rate comes at its time, what is over the number in hands waits until one is done. Under an ordered
-- subscription what follows in that key waits as well.
create or replace function kirby.limit_keys(p_subscription kirby.subscription, p_claim kirby.claim)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_ordered boolean := p_subscription.mode = 'ordered';
  v_pause   interval := make_interval(secs => greatest(0, 0.25 - 1 / p_subscription.key_rate));
  v_key     text := null;
  v_room    bigint;
  v_held    boolean;
  v_slot    timestamptz;
  v_message record;
begin
  for v_message in
    select m.position, m.key from kirby.message m
     where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane and m.key is not null
       and m.position between p_claim.first and p_claim.last
       and not exists (select from kirby.due d
                        where d.subscription_id = p_subscription.id and d.position = m.position)
     order by m.key, m.position
  loop
    if v_key is distinct from v_message.key then
      v_key := v_message.key;
      v_held := false;
      if not v_ordered and p_subscription.key_in_flight is not null then
        v_room := p_subscription.key_in_flight - kirby.in_hands(p_subscription, v_key)
                  + (select count(*) from kirby.message m
                      where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane and m.key = v_key
                        and m.position between p_claim.first and p_claim.last
                        and not exists (select from kirby.due d where d.subscription_id = p_subscription.id
                                                                  and d.position = m.position));
      end if;
    end if;

    v_slot := null;
    if not v_held and p_subscription.key_rate is not null then
      v_slot := kirby.next_slot(p_subscription, v_key);
    end if;
    if not v_held and v_slot > kirby.now() + v_pause then
      insert into kirby.due (subscription_id, position, lane, key, due_at, reason)
      values (p_subscription.id, v_message.position, p_claim.lane, v_key, v_slot, 'limited');
      v_held := v_ordered;
    elsif v_held or v_room <= 0 then
      insert into kirby.due (subscription_id, position, lane, key, due_at, reason)
      values (p_subscription.id, v_message.position, p_claim.lane, v_key, 'infinity', 'waiting');
    else
      v_room := v_room - 1;
    end if;
  end loop;
end;
$$;
