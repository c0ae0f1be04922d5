-- Claim the next range of a lane that has messages; NULL if there is none. An ordered subscription has
-- one open range a lane, a shared one any number.
--
-- Lanes are tried one at a time in a random order; each is locked alone and then looked at again, since
-- another worker may have claimed it between the look and the lock.
create or replace function kirby.take_lane(
  p_subscription kirby.subscription,
  p_run_id bigint,
  p_limit integer,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_horizon bigint := kirby.horizon(p_subscription.topic_id);
  v_lane    smallint;
  v_cursor  kirby.cursor;
  v_first   bigint;
  v_last    bigint;
  v_claim   kirby.claim;
begin
  for v_lane in
    select c.lane from kirby.cursor c
     where c.subscription_id = p_subscription.id
       and not kirby.lane_is_taken(p_subscription, c.lane)
       and exists (select from kirby.message m
                    where m.topic_id = p_subscription.topic_id and m.lane = c.lane
                      and m.position > c.position and m.position <= v_horizon)
     order by random()
  loop
    select * into v_cursor from kirby.cursor c
     where c.subscription_id = p_subscription.id and c.lane = v_lane
       for no key update skip locked;
    continue when not found;
    continue when kirby.lane_is_taken(p_subscription, v_lane);

    select min(m.position), max(m.position) into v_first, v_last
      from (select position from kirby.message
             where topic_id = p_subscription.topic_id and lane = v_lane
               and position > v_cursor.position and position <= v_horizon
             order by position limit p_limit) m;
    continue when v_first is null;

    perform kirby.forget_done(p_subscription.id, v_lane);
    update kirby.cursor set position = v_last
     where subscription_id = p_subscription.id and lane = v_lane;
    insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, lease_until)
    values (p_subscription.id, v_lane, v_first, v_last, v_last, p_run_id, kirby.now() + p_lease)
    returning * into v_claim;
    v_claim := kirby.open_claim(p_subscription, v_claim);
    if v_claim.id is not null then
      return v_claim;
    end if;
  end loop;
  return null;
end;
$$;
