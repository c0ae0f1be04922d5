-- Begin a rewind that was planned, in one transaction for all its subscriptions; audited. What they have in hands
-- of the part that comes again is fenced off (KB005), and their lanes are moved back. If states are set back too,
-- it is prepared first (kirby.prepare_rewind).
-- KB002: no such rewind. KB004: it has begun, or another one with states is not over. KB001: retention.
create or replace function kirby.begin_rewind(p_id bigint, p_actor text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_rewind kirby.rewind;
  v_ids    integer[];
  v_other  bigint;
begin
  perform kirby.check_isolation();
  select * into v_rewind from kirby.rewind w where w.id = p_id;
  if not found then
    perform kirby.fail('KB002', format('there is no rewind %s', p_id));
  end if;
  perform from kirby.topic t where t.id = v_rewind.topic_id for share;  -- no retention, no change of lanes
  perform kirby.check_earliest(v_rewind.topic_id, v_rewind.after);
  v_ids := array(select s.id from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s);
  perform kirby.stop_claims(v_ids);
  select * into v_rewind from kirby.rewind w where w.id = p_id for update;
  if v_rewind.status <> 'planned' then
    perform kirby.fail('KB004', format('rewind %s is %s already', p_id, v_rewind.status));
  end if;
  select w.id into v_other
    from kirby.rewind w
   where w.status in ('preparing', 'running', 'paused', 'aborting') and (w.states or v_rewind.states)
     and exists (select from kirby.rewound(w.topic_id, w.subscriptions) s where s.id = any (v_ids))
   order by w.id limit 1;
  if found then
    perform kirby.fail('KB004', format('rewind %s of the same subscriptions is not over, and states are set back: wait for it, or abort it', v_other));
  end if;

  update kirby.rewind w
     set status = case when w.states then 'preparing' else 'running' end, started_at = kirby.now(),
         position = kirby.audit(p_actor, 'rewind_begun', 'rewind/' || p_id, p_reason => w.reason, p_after =>
           jsonb_build_object('topic_id', w.topic_id, 'after', w.after, 'until', w.until, 'keys', w.keys,
                              'subscriptions', w.subscriptions, 'states', w.states, 'rate', w.rate))
   where w.id = p_id
  returning * into v_rewind;
  if v_rewind.states then
    update kirby.cursor set rewind_id = p_id where subscription_id = any (v_ids);
    perform kirby.prepare_rewind(v_rewind);
  else
    perform kirby.move_back(v_rewind);
  end if;
end;
$$;
