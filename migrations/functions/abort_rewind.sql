-- Give a rewind up; audited. Its lanes go on where they were, and what is in hands is finished. If it set states
-- back, they get what they had before, and what came since is delivered again on top (kirby.take_back): that waits
-- until what is on its way downstream has arrived. KB002. KB004: it is over.
create or replace function kirby.abort_rewind(p_id bigint, p_actor text, p_reason text default null)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_rewind kirby.rewind;
  v_ids    integer[];
begin
  perform kirby.check_isolation();
  select * into v_rewind from kirby.rewind w where w.id = p_id;
  if not found then
    perform kirby.fail('KB002', format('there is no rewind %s', p_id));
  end if;
  perform from kirby.topic t where t.id = v_rewind.topic_id for share;
  v_ids := array(select s.id from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s);
  perform kirby.stop_claims(v_ids);
  select * into v_rewind from kirby.rewind w where w.id = p_id for update;
  if v_rewind.status in ('done', 'aborted', 'aborting') then
    perform kirby.fail('KB004', format('rewind %s is %s already', p_id, v_rewind.status));
  elsif v_rewind.states and v_rewind.status in ('running', 'paused') then
    update kirby.rewind set status = 'aborting' where id = p_id returning * into v_rewind;
    perform kirby.audit(p_actor, 'rewind_aborting', 'rewind/' || p_id, p_reason => p_reason);
    update kirby.cursor set rewind_id = p_id where subscription_id = any (v_ids);
    if kirby.take_back(v_rewind) then
      perform kirby.close_rewind(v_rewind, 'aborted', p_actor, p_reason);
    end if;
    return;
  end if;
  perform kirby.close_rewind(v_rewind, 'aborted', p_actor, p_reason);
  perform kirby.drop_parts(v_rewind);
  perform kirby.forget_fresh(p_id);
  perform pg_notify('kirby_topic_' || v_rewind.topic_id, '');
end;
$$;
