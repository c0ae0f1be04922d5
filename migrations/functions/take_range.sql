-- Claim the next range of a lane; NULL if there is none, or somebody else is at it. Only when the lane is
-- locked is it looked at whether it is free: another worker may have claimed it before. Ranges of which
-- nothing is handed out (delayed, expired, of held keys) are passed over, but not for ever in one go.
create or replace function kirby.take_range(
  p_subscription kirby.subscription,
  p_lane smallint,
  p_horizon bigint,
  p_run_id bigint,
  p_limit integer,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_most constant bigint := 10000;
  v_passed bigint := 0;
  v_cursor kirby.cursor;
  v_range  record;
  v_claim  kirby.claim;
begin
  select * into v_cursor from kirby.cursor c
   where c.subscription_id = p_subscription.id and c.lane = p_lane
   order by c.position desc limit 1
     for no key update skip locked;
  if not found or p_subscription.mode = 'ordered' and exists (
    select from kirby.claim o where o.id = v_cursor.claim_id
  ) then
    return null;
  end if;

  loop
    v_range := kirby.next_range(p_subscription.topic_id, p_lane, v_cursor.position, p_horizon, p_limit);
    if v_range.first is null then
      return null;
    end if;

    insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, holder, lease_until)
    values (p_subscription.id, p_lane, v_range.first, v_range.last, v_range.last, p_run_id,
            current_setting('kirby.holder', true), kirby.now() + p_lease)
    returning * into v_claim;
    update kirby.cursor
       set position = v_range.last, delivered = delivered + v_range.messages, claim_id = v_claim.id
     where subscription_id = p_subscription.id and lane = p_lane and position = v_cursor.position
    returning * into v_cursor;
    v_claim := kirby.open_claim(p_subscription, v_claim, true);
    v_passed := v_passed + v_range.messages;
    if v_claim.id is not null or v_passed >= v_most then
      return v_claim;
    end if;
  end loop;
end;
$$;
