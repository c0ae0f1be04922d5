-- Deliver the messages of some keys again, each by itself, in the order of each key: what of them was not settled
-- joins in its turn (parked ones too), and what comes after waits for them (kirby.hold_back). Claims that hold
-- such a key are given back with another fence; other keys go on. The caller has stopped the claims.
create or replace function kirby.move_keys(p_rewind kirby.rewind, p_subscription kirby.subscription)
  returns void
  language plpgsql
  volatile
as $$
begin
  insert into kirby.rewind_lane (rewind_id, subscription_id, lane, after, until, upto, passed, delivered, messages, replays)
  select p_rewind.id, p_subscription.id, c.lane, c.position, c.position, c.position, c.delivered, c.delivered,
         count(*), count(*)
    from kirby.key_parts(p_subscription, p_rewind.after, p_rewind.until, p_rewind.keys) k
    join kirby.cursor c on c.subscription_id = p_subscription.id and c.lane = k.lane
   where not k.undone
   group by c.lane, c.position, c.delivered;
  perform kirby.file_replays(p_rewind.id, p_subscription, p_rewind.keys, array(
    select k.position from kirby.key_parts(p_subscription, p_rewind.after, p_rewind.until, p_rewind.keys) k
     where not k.undone));
end;
$$;
