-- File what failed of a claim. p_failures: [{"p": position, "a": action, "e": error, "d": seconds}, …]
--   retry   again after a pause: d, or a full-jitter exponential back-off from 1 s to 10 minutes;
--           parked instead once max_attempts are used up
--   park    put aside until a person looks at it
--   wait    its key is held by a message before it: delivered when that one is done
create or replace function kirby.file_failures(
  p_subscription kirby.subscription,
  p_claim kirby.claim,
  p_failures jsonb
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_failure record;
begin
  for v_failure in
    select f.p, f.a, f.e, f.d, m.lane, m.key
      from jsonb_to_recordset(p_failures) as f (p bigint, a text, e text, d double precision)
      join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
                          and m.position = f.p
     where f.p between p_claim.first and p_claim.upto
     order by f.p
  loop
    if v_failure.a = 'park' or v_failure.a = 'retry' and p_claim.attempt >= p_subscription.max_attempts then
      perform kirby.park(p_subscription, v_failure.lane, v_failure.p, p_claim.attempt, 'failed', v_failure.e);
      continue;
    end if;
    insert into kirby.due (subscription_id, position, lane, key, attempt, due_at, reason, error)
    values (p_subscription.id, v_failure.p, v_failure.lane, v_failure.key,
            case v_failure.a when 'retry' then p_claim.attempt else 0 end,
            case v_failure.a when 'retry' then kirby.now() + coalesce(
              make_interval(secs => v_failure.d), kirby.retry_pause(p_claim.attempt)) else 'infinity' end,
            case v_failure.a when 'retry' then 'failed' else 'waiting' end,
            v_failure.e)
        on conflict (subscription_id, position) do update
       set attempt = excluded.attempt, due_at = excluded.due_at, reason = excluded.reason,
           error = excluded.error;
  end loop;

  if p_claim.rewind_id is not null then
    perform kirby.mark_replays(p_claim);
  end if;

  -- What was parked may have let go of keys whose messages were filed as waiting after it.
  for v_failure in
    select distinct d.key from kirby.due d
     where d.subscription_id = p_subscription.id and d.key is not null
       and d.position in (select f.p from jsonb_to_recordset(p_failures) as f (p bigint))
  loop
    perform kirby.free_key(p_subscription, v_failure.key);
  end loop;
end;
$$;
