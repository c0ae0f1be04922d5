-- The messages of a part of a lane (above p_after, up to p_until) that a subscription was given and never settled:
-- to be delivered by themselves, in somebody's hands, or to come again in a rewind for the first time.
create or replace function kirby.undone_in(
  p_subscription kirby.subscription,
  p_lane smallint,
  p_after bigint,
  p_until bigint
)
  returns setof bigint
  language sql
  volatile
as $$
  select d.position from kirby.due d
   where d.subscription_id = p_subscription.id and d.lane = p_lane
     and d.position > p_after and d.position <= p_until
     and d.reason <> 'done' and d.rewind_id is null
   union
  select m.position
    from kirby.claim c
    join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = p_lane
                        and m.position between c.first and c.last
   where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id)
     and c.lane = p_lane and c.kind = 'range' and c.rewind_id is null
     and m.position > p_after and m.position <= p_until
     and not exists (select from kirby.due d where d.subscription_id = p_subscription.id and d.position = m.position)
   union
  select f.position
    from kirby.rewind_fresh f
    join kirby.cursor n on n.subscription_id = f.subscription_id and n.lane = f.lane
   where f.subscription_id = p_subscription.id and f.lane = p_lane
     and f.position > p_after and f.position <= p_until
     and not exists (select from kirby.due d where d.subscription_id = p_subscription.id and d.position = f.position)
     and (n.rewind_id is not null and f.position > n.position or exists (
           select from kirby.claim c
            where c.subscription_id = f.subscription_id and c.id >= kirby.first_claim(p_subscription.id)
              and c.lane = f.lane and c.kind = 'range'
              and c.rewind_id is not null and f.position between c.first and c.last));
$$;
