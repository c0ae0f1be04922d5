-- Claim the next range of an ordered subscription for a run: an expired claim first, then a lane
-- that has messages and no open claim. NULL if there is nothing to do.
--
-- Lanes are tried one at a time from a random one on; each is locked alone and then looked at again,
-- since another worker may have claimed it between the look and the lock.
create or replace function kirby.take_lane(
  p_subscription_id integer,
  p_topic_id integer,
  p_run_id bigint,
  p_limit integer,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_claim   kirby.claim;
  v_horizon bigint;
  v_lane    smallint;
  v_cursor  kirby.cursor;
  v_first   bigint;
  v_last    bigint;
begin
  update kirby.claim c
     set fence = nextval('kirby.fence'), run_id = p_run_id, attempt = c.attempt + 1,
         lease_until = kirby.now() + p_lease
   where c.id = (select e.id from kirby.claim e
                  where e.subscription_id = p_subscription_id and e.lease_until <= kirby.now()
                  order by e.lease_until limit 1
                    for update skip locked)
  returning c.* into v_claim;
  if found then
    return v_claim;
  end if;

  v_horizon := kirby.horizon(p_topic_id);
  for v_lane in
    select c.lane from kirby.cursor c
     where c.subscription_id = p_subscription_id
       and not exists (select from kirby.claim o
                        where o.subscription_id = c.subscription_id and o.lane = c.lane)
       and exists (select from kirby.message m
                    where m.topic_id = p_topic_id and m.lane = c.lane
                      and m.position > c.position and m.position <= v_horizon)
     order by random()
  loop
    select * into v_cursor from kirby.cursor c
     where c.subscription_id = p_subscription_id and c.lane = v_lane
       for no key update skip locked;
    continue when not found;
    continue when exists (select from kirby.claim o
                           where o.subscription_id = p_subscription_id and o.lane = v_lane);

    select min(m.position), max(m.position) into v_first, v_last
      from (select position from kirby.message
             where topic_id = p_topic_id and lane = v_lane
               and position > v_cursor.position and position <= v_horizon
             order by position limit p_limit) m;
    continue when v_first is null;

    update kirby.cursor set position = v_last
     where subscription_id = p_subscription_id and lane = v_lane;
    insert into kirby.claim (subscription_id, lane, first, last, run_id, lease_until)
    values (p_subscription_id, v_lane, v_first, v_last, p_run_id, kirby.now() + p_lease)
    returning * into v_claim;
    return v_claim;
  end loop;
  return null;
end;
$$;
