-- Whether somebody holds a range of this lane that nobody else may work beside.
create or replace function kirby.lane_is_taken(p_subscription kirby.subscription, p_lane smallint)
  returns boolean
  language sql
  volatile
as $$
  select p_subscription.mode = 'ordered'
     and exists (select from kirby.claim o
                  where o.subscription_id = p_subscription.id and o.lane = p_lane and o.kind = 'range');
$$;
