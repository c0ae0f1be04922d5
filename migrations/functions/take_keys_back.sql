-- Take a rewind of keys that set states back itself back: once what is on its way downstream has arrived, the keys of
-- states get what they had before it began. What was settled since, and counts in them, is delivered again on top of
-- that: of the keys of the rewind, and of other keys that changed the same. Returns whether it is over. The caller has
-- stopped the claims.
create or replace function kirby.take_keys_back(p_rewind kirby.rewind)
  returns boolean
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_touched      record;
  v_subscription kirby.subscription;
begin
  v_touched := kirby.touched_since(p_rewind);
  if kirby.note_waits(p_rewind, v_touched.topics, v_touched.positions, v_touched.jobs) then
    return false;
  end if;

  perform kirby.note_done(p_rewind.id);
  perform kirby.set_keys_back(p_rewind, v_touched.states, v_touched.state_keys,
                              array_fill(p_rewind.position, array[cardinality(v_touched.states)]));
  for v_subscription in select * from kirby.rewound(p_rewind.topic_id, p_rewind.subscriptions) loop
    delete from kirby.claim c
     where c.subscription_id = v_subscription.id and c.id >= kirby.first_claim(v_subscription.id)
       and c.rewind_id = p_rewind.id;
    perform kirby.close_due(v_subscription, d.position)
       from (select d.position from kirby.due d
              where d.rewind_id = p_rewind.id and d.subscription_id = v_subscription.id and d.reason <> 'done'
              order by d.position) d;
    perform kirby.file_replays(p_rewind.id, v_subscription, v_touched.keys, array(
      select kirby.settled_since(p_rewind, v_subscription, v_touched.keys, v_touched.alone)));
    update kirby.cursor set rewind_id = null
     where subscription_id = v_subscription.id and rewind_id = p_rewind.id;
  end loop;
  delete from kirby.rewind_unsettled u where u.rewind_id = p_rewind.id;
  perform pg_notify('kirby_topic_' || p_rewind.topic_id, '');
  return true;
end;
$$;
