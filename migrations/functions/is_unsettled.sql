-- Whether a subscription is not done with a message: it was not given it yet, has it in hands, or is to be given it by
-- itself. Parked counts as done.
create or replace function kirby.is_unsettled(p_subscription_id integer, p_lane smallint, p_position bigint)
  returns boolean
  language sql
  volatile
as $$
  select case when o.position is not null then o.parked_at is null and o.reason <> 'done'
              when p_position > c.position then true
              else exists (select from kirby.claim h
                            where h.subscription_id = p_subscription_id
                              and h.id >= kirby.first_claim(p_subscription_id) and h.lane = p_lane
                              and h.kind = 'range' and p_position between h.first and h.last) end
    from kirby.cursor c
    left join kirby.due o on o.subscription_id = c.subscription_id and o.position = p_position
   where c.subscription_id = p_subscription_id and c.lane = p_lane;
$$;
