-- Claim the next range of a lane that has messages; NULL if there is none. An ordered subscription has
-- one open range a lane, a shared one any number. A range is bounded by number and by size.
--
-- Lanes are tried one at a time in a random order, band by band (but one time in sixteen, so that a low
-- band does not starve). With a backlog the first one at random will do; else all are looked at. While a
-- canary serves a share of the keys, some lanes are its own (kirby.canary_lanes), and the others are not.
create or replace function kirby.take_lane(
  p_subscription kirby.subscription,
  p_run_id bigint,
  p_limit integer,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
  set plan_cache_mode = force_generic_plan  -- to plan for all partitions takes longer than to look
as $$
declare
  v_reach   bigint := kirby.horizon(p_subscription.topic_id);
  v_horizon bigint := v_reach;
  v_before  bigint;
  v_ordered boolean := p_subscription.mode = 'ordered';
  v_topic   kirby.topic;
  v_width   integer;
  v_band    integer;
  v_edge    integer;  -- lanes of a band below it are the canary's; null: there is none
  v_canary  boolean;
  v_lane    smallint;
  v_claim   kirby.claim;
begin
  select * into v_topic from kirby.topic where id = p_subscription.topic_id;
  v_width := v_topic.lanes / case when random() < 0.9375 then v_topic.bands else 1 end;
  if v_ordered and v_topic.lanes_from > 0 then
    v_horizon := kirby.barrier(p_subscription, v_reach);
  end if;
  if p_subscription.canary_share > 0 then
    v_band := v_topic.lanes / v_topic.bands;
    v_edge := kirby.canary_lanes(p_subscription.canary_share, v_topic);
    v_canary := exists (select from kirby.run r where r.id = p_run_id and r.canary);
  end if;

  if v_width = v_topic.lanes then
    v_lane := floor(random() * v_topic.lanes);
    if (v_edge is null or (v_lane % v_band < v_edge) = v_canary) and exists (
      select from kirby.message m
       where m.topic_id = p_subscription.topic_id and m.lane = v_lane and m.position <= v_horizon
         and m.position > (select c.position from kirby.cursor c
                            where c.subscription_id = p_subscription.id and c.lane = v_lane
                            order by c.position desc limit 1)
    ) then  -- an empty one is not locked: somebody else may be about to claim from it
      v_claim := kirby.take_range(p_subscription, v_lane, v_horizon, p_run_id, p_limit, p_lease);
      if v_claim.id is not null then
        return v_claim;
      end if;
    end if;
  end if;

  loop
    for v_lane in
      select c.lane
        from generate_series(0, v_topic.lanes - 1) as l (lane)
       cross join lateral (
             select * from kirby.cursor n
              where n.subscription_id = p_subscription.id and n.lane = l.lane
              order by n.position desc limit 1) c
       cross join lateral (  -- not EXISTS: that may be planned as a join with all messages of the topic
             select from kirby.message m
              where m.topic_id = p_subscription.topic_id and m.lane = c.lane
                and m.position > c.position and m.position <= v_horizon
              order by m.position limit 1) m
       where not (v_ordered and exists (select from kirby.claim o where o.id = c.claim_id))
         and (v_edge is null or (c.lane % v_band < v_edge) = v_canary)
       order by c.lane / v_width, random()
    loop
      v_claim := kirby.take_range(p_subscription, v_lane, v_horizon, p_run_id, p_limit, p_lease);
      if v_claim.id is not null then
        return v_claim;
      end if;
    end loop;
    -- Nothing was to be handed out below a change of lanes: then perhaps it is behind us now.
    exit when v_horizon >= v_reach;
    v_before := v_horizon;
    v_horizon := kirby.barrier(p_subscription, v_reach);
    exit when v_horizon <= v_before;
  end loop;
  return null;
end;
$$;
