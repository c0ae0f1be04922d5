-- Put a message aside until a person looks at it; the messages of its key that wait for it go on if the
-- subscription says so.
create or replace function kirby.park(
  p_subscription kirby.subscription,
  p_lane smallint,
  p_position bigint,
  p_attempt smallint,
  p_reason text,
  p_error text
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_key text;
begin
  select m.key into v_key from kirby.message m
   where m.topic_id = p_subscription.topic_id and m.lane = p_lane and m.position = p_position;
  insert into kirby.due (subscription_id, position, lane, key, attempt, due_at, parked_at, reason, error)
  values (p_subscription.id, p_position, p_lane, v_key, p_attempt, 'infinity',
          kirby.now(), p_reason, p_error)
      on conflict (subscription_id, position) do update
     set attempt = excluded.attempt, due_at = excluded.due_at, parked_at = excluded.parked_at,
         reason = excluded.reason, error = excluded.error;
  perform kirby.free_key(p_subscription, v_key);
  if p_reason = 'killed' then
    perform kirby.answer_killed(p_subscription, p_lane, p_position, p_error);
  end if;
end;
$$;
