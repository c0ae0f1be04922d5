-- Go on with a rewind that sets states back: once the subscriptions downstream that change them are done with what
-- is on its way to them (it would count twice), the keys that were changed from the messages that come again are
-- set back to what they were before the first of those changes, and the lanes are moved, in one transaction.
-- Returns whether it runs now. The caller has stopped the claims.
create or replace function kirby.prepare_rewind(p_rewind kirby.rewind)
  returns boolean
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_made   record;
  v_waits  text[];
  v_rewind kirby.rewind;
begin
  select array_agg(d.place_id) filter (where d.kind = 'message') as topics,
         array_agg(d.position) filter (where d.kind = 'message') as positions,
         array_agg(d.place_id) filter (where d.kind = 'mutation') as states,
         array_agg(d.key) filter (where d.kind = 'mutation') as keys,
         array_agg(d.position) filter (where d.kind = 'mutation') as versions,
         array_agg(distinct d.job) as jobs
    into v_made
    from kirby.rewind_made(p_rewind) d;
  v_waits := array(select format('%s of %s at position %s', w.subscription, w.topic, w.position)
                     from kirby.rewind_waits(p_rewind, v_made.topics, v_made.positions, v_made.jobs) w);
  update kirby.rewind w
     set waits = v_waits, status = case when v_waits = '{}' then 'running' else w.status end
   where w.id = p_rewind.id
  returning * into v_rewind;
  if v_waits <> '{}' then
    return false;
  end if;

  perform kirby.set_keys_back(v_rewind, array_agg(f.state_id), array_agg(f.key), array_agg(f.position))
     from (select m.state_id, m.key, min(m.position) as position
             from unnest(v_made.states, v_made.keys, v_made.versions) as m (state_id, key, position)
            group by m.state_id, m.key) f;
  update kirby.cursor c set rewind_id = null
   where c.rewind_id = v_rewind.id
     and c.subscription_id in (select s.id from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s);
  perform kirby.move_back(v_rewind);
  if v_rewind.keys is null then  -- lanes with nothing to deliver again too: kirby.take_back goes by them
    insert into kirby.rewind_lane (rewind_id, subscription_id, lane, after, until, upto, passed, delivered, messages, replays)
    select v_rewind.id, c.subscription_id, c.lane, c.position, c.position, c.position, c.delivered, c.delivered, 0, 0
      from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s
      join kirby.cursor c on c.subscription_id = s.id
        on conflict do nothing;
  end if;
  return true;
end;
$$;
