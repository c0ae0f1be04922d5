-- Claim the next range of a lane; NULL if there is none, or somebody else is at it. Only when the lane is
-- locked is it looked at whether it is free: another worker may have claimed it before. Ranges of which
-- nothing is handed out (delayed, expired, of held keys) are passed over, but not for ever in one go.
--
-- In a lane that was moved back a range ends where the part that comes again does, so that it is all of it or
-- none; behind the last message of that part the lane goes on where it was.
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
  v_passed  bigint := 0;
  v_limit   integer;
  v_horizon bigint;
  v_cursor  kirby.cursor;
  v_part    kirby.rewind_lane;
  v_range   record;
  v_claim   kirby.claim;
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
    if v_cursor.rewind_id is not null then
      v_limit := kirby.replay_room(v_cursor.rewind_id, p_limit);
      if v_limit = 0 then
        return null;
      end if;
      select * into v_part from kirby.rewind_lane l
       where l.subscription_id = p_subscription.id and l.lane = p_lane and l.rewind_id = v_cursor.rewind_id;
      v_horizon := least(p_horizon, v_part.until);
    else
      v_limit := p_limit;
      v_horizon := p_horizon;
    end if;
    v_range := kirby.next_range(p_subscription.topic_id, p_lane, v_cursor.position, v_horizon, v_limit);
    if v_range.first is null then
      return null;
    end if;

    insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, holder, lease_until, rewind_id)
    values (p_subscription.id, p_lane, v_range.first, v_range.last, v_range.last, p_run_id,
            current_setting('kirby.holder', true), kirby.now() + p_lease, v_cursor.rewind_id)
    returning * into v_claim;
    update kirby.cursor
       set position = v_range.last, delivered = delivered + v_range.messages, claim_id = v_claim.id
     where subscription_id = p_subscription.id and lane = p_lane and position = v_cursor.position
    returning * into v_cursor;
    if v_cursor.rewind_id is not null then
      perform kirby.count_replays(v_cursor.rewind_id, v_range.messages);
      v_cursor := kirby.leave_part(v_cursor, p_subscription.topic_id);
    end if;
    v_claim := kirby.open_claim(p_subscription, v_claim, true);
    v_passed := v_passed + v_range.messages;
    if v_claim.id is not null or v_passed >= v_most then
      return v_claim;
    end if;
  end loop;
end;
$$;
