-- Take a rewind that set states back itself back: once what is on its way downstream has arrived, the keys get
-- what they had before it began, and what came since is delivered again on top of that. Returns whether it is over.
-- The caller has stopped the claims.
create or replace function kirby.take_back(p_rewind kirby.rewind)
  returns boolean
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_made         record;
  v_subscription kirby.subscription;
  v_lane         kirby.rewind_lane;
  v_part         kirby.rewind_lane;
  v_undone       bigint[];
  v_since        kirby.rewind := p_rewind;
begin
  if p_rewind.keys is not null then
    return kirby.take_keys_back(p_rewind);
  end if;
  v_made := kirby.rewind_lists(p_rewind, true);
  if kirby.note_waits(p_rewind, v_made.topics, v_made.positions, v_made.jobs) then
    return false;
  end if;

  perform kirby.note_done(p_rewind.id);
  v_since.until := null;
  perform kirby.set_keys_back(p_rewind, array_agg(k.state_id), array_agg(k.key), array_agg(p_rewind.position))
     from (select s.state_id, s.key from kirby.rewind_state s where s.rewind_id = p_rewind.id
            union
           select m.state_id, m.key
             from unnest(v_made.states, v_made.keys, v_made.versions) as m (state_id, key, position)
            where m.position > p_rewind.position) k;
  for v_subscription in select * from kirby.rewound(p_rewind.topic_id, p_rewind.subscriptions) loop
    for v_lane in
      select * from kirby.rewind_lane l
       where l.rewind_id = p_rewind.id and l.subscription_id = v_subscription.id order by l.lane
    loop
      -- What had never been settled when it began, and was since, has to be delivered again too.
      v_undone := array(select kirby.undone_in(v_subscription, v_lane.lane, v_lane.after, v_lane.until));
      delete from kirby.claim c
       where c.subscription_id = v_subscription.id and c.id >= kirby.first_claim(v_subscription.id)
         and c.lane = v_lane.lane and c.rewind_id = p_rewind.id;
      delete from kirby.due d
       where d.subscription_id = v_subscription.id and d.lane = v_lane.lane and d.rewind_id = p_rewind.id;
      perform kirby.file_fresh(v_subscription, v_lane.lane, v_undone);
      perform kirby.file_fresh(v_subscription, v_lane.lane, array(
        select f.position from kirby.rewind_fresh f
         where f.subscription_id = v_subscription.id and f.lane = v_lane.lane
           and f.position > v_lane.after and f.position <= v_lane.until), p_rewind.id);
      update kirby.cursor
         set rewind_id = null, position = greatest(position, v_lane.upto),
             delivered = case when position < v_lane.upto then v_lane.delivered else delivered end
       where subscription_id = v_subscription.id and lane = v_lane.lane;
    end loop;
    for v_lane in
      select * from kirby.rewind_lane l
       where l.rewind_id = p_rewind.id and l.subscription_id = v_subscription.id order by l.lane
    loop
      select * into v_part from kirby.rewind_parts(v_subscription, v_lane.upto, null, v_lane.lane);
      if v_part.messages > 0 then
        perform kirby.move_lane(v_since, v_subscription, v_part);
      end if;
    end loop;
  end loop;
  perform pg_notify('kirby_topic_' || p_rewind.topic_id, '');
  return true;
end;
$$;
