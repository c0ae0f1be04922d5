-- Go on with a rewind that sets states back: once the subscriptions downstream that change them are done with what
-- is on its way to them (it would count twice), the keys that were changed from the messages that come again are
-- set back to what they were before the first of those changes, and the lanes are moved, in one transaction.
-- What settled since the plan may have combined messages of both sides of the point: then it goes back a little further
-- (kirby.exact_point), and if there is no such point any more the rewind is aborted; unless it may be inexact.
-- Returns whether it runs now. The caller has stopped the claims.
create or replace function kirby.prepare_rewind(p_rewind kirby.rewind)
  returns boolean
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_made   record;
  v_first  record;
  v_note   jsonb;
  v_rewind kirby.rewind := p_rewind;
begin
  perform pg_advisory_xact_lock_shared(kirby.compaction_lock(), v_rewind.environment_id);  -- what it needs stays
  v_made := kirby.rewind_lists(v_rewind);
  if kirby.note_waits(v_rewind, v_made.topics, v_made.positions, v_made.jobs) then
    return false;
  end if;
  if not v_rewind.inexact then
    v_note := kirby.exact_note(t, v_rewind.after, v_rewind.until, v_rewind.keys, kirby.rewind_jobs(v_rewind))
         from kirby.topic t where t.id = v_rewind.topic_id;
  end if;
  if v_note ->> 'why' is not null then
    update kirby.rewind set reason = concat_ws('; ', nullif(reason, ''), v_note ->> 'text') where id = v_rewind.id;
    perform kirby.close_rewind(v_rewind, 'aborted', 'kirby', v_note ->> 'text');
    perform kirby.drop_parts(v_rewind);
    return false;
  elsif v_note is not null then
    update kirby.rewind set after = (v_note ->> 'after')::bigint where id = v_rewind.id returning * into v_rewind;
    perform kirby.audit('kirby', 'rewind_moved', 'rewind/' || v_rewind.id, p_reason => v_note ->> 'text',
                        p_before => jsonb_build_object('after', p_rewind.after),
                        p_after => jsonb_build_object('after', v_rewind.after));
    return kirby.prepare_rewind(v_rewind);
  end if;

  select array_agg(f.state_id) as states, array_agg(f.key) as keys, array_agg(f.position) as positions into v_first
    from (select s.state_id, s.key, min(s.position) as position
            from kirby.standing_since(v_made.states, v_made.keys, v_made.versions) s
           group by s.state_id, s.key) f;
  perform from kirby.state_entry e
    join unnest(v_first.states, v_first.keys) as c (state_id, key) on c.state_id = e.state_id and c.key = e.key
    order by e.state_id, e.key
      for no key update of e;
  update kirby.rewind set status = 'running', position = nextval('kirby.position')
   where id = v_rewind.id
  returning * into v_rewind;
  perform kirby.set_keys_back(v_rewind, v_first.states, v_first.keys, v_first.positions);
  update kirby.cursor c set rewind_id = null
   where c.rewind_id = v_rewind.id
     and c.subscription_id in (select s.id from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s);
  perform kirby.note_unsettled(v_rewind);
  perform kirby.move_back(v_rewind);
  -- lanes with nothing to deliver again too: kirby.take_back goes by them
  insert into kirby.rewind_lane (rewind_id, subscription_id, lane, after, until, upto, passed, delivered, messages, replays)
  select v_rewind.id, c.subscription_id, c.lane, c.position, c.position, c.position, c.delivered, c.delivered, 0, 0
    from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s
    join kirby.cursor c on c.subscription_id = s.id
      on conflict do nothing;
  return true;
end;
$$;
