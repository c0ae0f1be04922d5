-- Of a part of a lane that is passed over after all, file the messages that were never settled, so that each is
-- delivered by itself in its turn; with p_rewind_id as replays: those that were settled meanwhile.
create or replace function kirby.file_fresh(
  p_subscription kirby.subscription,
  p_lane smallint,
  p_positions bigint[],
  p_rewind_id bigint default null
)
  returns void
  language sql
  volatile
as $$
  insert into kirby.due (subscription_id, position, lane, key, due_at, reason, rewind_id)
  select p_subscription.id, m.position, m.lane, m.key, kirby.now(),
         case when m.key is not null and p_subscription.mode = 'ordered' then 'queued' else 'ready' end, p_rewind_id
    from kirby.message m
   where m.topic_id = p_subscription.topic_id and m.lane = p_lane and m.position = any (p_positions)
     and not kirby.is_gone(m)
      on conflict do nothing;
$$;
