-- Move a lane of a subscription back, as kirby.rewind_parts has it. What is in hands of that part is fenced off;
-- that, and what was to be delivered by itself, comes again with the lane, for the first time, as it were. But
-- what is delayed, and what a person has edited, stays to be delivered by itself, and what was done by itself outside
-- of what was asked for stays noted as done. The caller has stopped the claims.
create or replace function kirby.move_lane(
  p_rewind kirby.rewind,
  p_subscription kirby.subscription,
  p_part kirby.rewind_lane
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_fresh bigint[] := array(select kirby.undone_in(p_subscription, p_part.lane, p_part.after, p_part.until));
  v_keys  text[];
begin
  insert into kirby.rewind_lane (rewind_id, subscription_id, lane, after, until, upto, passed, delivered, messages, replays)
  values (p_rewind.id, p_subscription.id, p_part.lane, p_part.after, p_part.until, p_part.upto, p_part.passed,
          p_part.delivered, p_part.messages, p_part.replays)
      on conflict (subscription_id, lane, rewind_id) do update
     set after = excluded.after, until = excluded.until, upto = excluded.upto, passed = excluded.passed,
         delivered = excluded.delivered, messages = excluded.messages, replays = excluded.replays;
  delete from kirby.rewind_fresh f
   where f.subscription_id = p_subscription.id and f.lane = p_part.lane
     and f.position > p_part.after and f.position <= p_part.until;
  insert into kirby.rewind_fresh (subscription_id, lane, position)
  select p_subscription.id, p_part.lane, f.position from unnest(v_fresh) as f (position);

  delete from kirby.claim c
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id)
     and c.lane = p_part.lane and c.first <= p_part.until and c.last > p_part.after;
  with forgotten as (
    delete from kirby.due d
     where d.subscription_id = p_subscription.id and d.lane = p_part.lane
       and d.position > p_part.after and d.position <= p_part.until
       and (d.reason <> 'done' or d.position > p_rewind.after and d.position <= coalesce(p_rewind.until, d.position))
       and d.reason <> 'delayed' and d.payload is null
    returning d.key
  )
  select array_agg(distinct f.key) into v_keys from forgotten f where f.key is not null;
  update kirby.due d set reason = 'queued', due_at = kirby.now()
   where d.subscription_id = p_subscription.id and d.lane = p_part.lane
     and d.position > p_part.after and d.position <= p_part.until
     and d.due_at = 'infinity' and d.parked_at is null and d.reason not in ('waiting', 'done');

  update kirby.cursor c
     set position = p_part.after, delivered = p_part.passed, rewind_id = p_rewind.id
   where c.subscription_id = p_subscription.id and c.lane = p_part.lane;
  perform kirby.free_key(p_subscription, k.key) from unnest(v_keys) as k (key);
end;
$$;
