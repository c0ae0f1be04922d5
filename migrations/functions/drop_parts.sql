-- Let the lanes of a rewind go on where they were, and forget what of it is to be delivered by itself; what is in
-- hands is finished. What had never been settled, and was to come again, is delivered by itself. The caller has
-- stopped the claims.
create or replace function kirby.drop_parts(p_rewind kirby.rewind)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_subscription kirby.subscription;
  v_lane         record;
  v_due          record;
begin
  for v_subscription in select * from kirby.rewound(p_rewind.topic_id, p_rewind.subscriptions) loop
    for v_lane in
      select c.position, l.* from kirby.cursor c
        join kirby.rewind_lane l on l.subscription_id = c.subscription_id and l.lane = c.lane and l.rewind_id = c.rewind_id
       where c.subscription_id = v_subscription.id and c.rewind_id = p_rewind.id
       order by c.lane
    loop
      perform kirby.file_fresh(v_subscription, v_lane.lane, array(
        select f.position from kirby.rewind_fresh f
         where f.subscription_id = v_subscription.id and f.lane = v_lane.lane
           and f.position > v_lane.position and f.position <= v_lane.until));
      update kirby.cursor
         set rewind_id = null, position = greatest(position, v_lane.upto),
             delivered = case when position < v_lane.upto then v_lane.delivered else delivered end
       where subscription_id = v_subscription.id and lane = v_lane.lane;
    end loop;
    update kirby.cursor set rewind_id = null
     where subscription_id = v_subscription.id and rewind_id = p_rewind.id;

    for v_due in
      select d.position from kirby.due d
       where d.rewind_id = p_rewind.id and d.subscription_id = v_subscription.id and d.reason <> 'done'
         and not exists (select from kirby.claim c
                          where c.subscription_id = d.subscription_id and c.id >= kirby.first_claim(d.subscription_id)
                            and c.kind = 'due' and c.first = d.position)
       order by d.position
    loop
      perform kirby.close_due(v_subscription, v_due.position);
    end loop;
  end loop;
end;
$$;
