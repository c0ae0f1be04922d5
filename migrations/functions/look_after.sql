-- Let a rewind that is not over go on; returns whether it is over now. KB004: somebody is in the way.
create or replace function kirby.look_after(p_id bigint)
  returns boolean
  language plpgsql
  volatile
as $$
declare
  v_rewind kirby.rewind;
begin
  select * into v_rewind from kirby.rewind w where w.id = p_id;
  if v_rewind.status in ('preparing', 'aborting') then
    -- As long as anything that was found is unsettled, there is nothing to compute and nothing to lock.
    if exists (select from jsonb_to_recordset(v_rewind.waits_for) as w (s integer, l smallint, p bigint)
                where kirby.is_unsettled(w.s, w.l, w.p)) then
      return false;
    end if;
    perform from kirby.topic t where t.id = v_rewind.topic_id for share;
    perform kirby.stop_claims(array(select s.id from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s));
  end if;
  select * into v_rewind from kirby.rewind w where w.id = p_id for update skip locked;
  if v_rewind.status = 'preparing' then
    perform kirby.prepare_rewind(v_rewind);
    return exists (select from kirby.rewind w where w.id = p_id and w.status = 'aborted');
  elsif v_rewind.status = 'aborting' then
    if not kirby.take_back(v_rewind) then
      return false;
    end if;
    perform kirby.close_rewind(v_rewind, 'aborted', 'kirby');
    return true;
  elsif v_rewind.status not in ('running', 'paused') then
    return false;
  end if;

  -- Retention was told to remove what was still to come.
  perform kirby.leave_part(c, v_rewind.topic_id)
     from (select c.* from kirby.cursor c
            where c.rewind_id = p_id
              and c.subscription_id in (select s.id from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s)
              for no key update skip locked) c;
  if exists (
    select from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s
     where exists (select from kirby.cursor c where c.subscription_id = s.id and c.rewind_id = p_id)
        or exists (select from kirby.claim c
                    where c.subscription_id = s.id and c.id >= kirby.first_claim(s.id) and c.rewind_id = p_id)
        or exists (select from kirby.due d
                    where d.rewind_id = p_id and d.subscription_id = s.id and d.parked_at is null and d.reason <> 'done')
  ) then
    return false;
  end if;
  perform kirby.close_rewind(v_rewind, 'done', 'kirby');
  return true;
end;
$$;
