-- What became of a task, or another message that was published under an id: unknown, scheduled, pending,
-- running, retrying, succeeded, failed, revoked or expired; with its result if one was kept in the topic
-- <topic>.results. What the subscription "workers" does counts. KB003.
create or replace function kirby.task_status(
  p_topic text,
  p_id text,
  out status text,
  out "position" bigint,
  out attempt integer,
  out error text,
  out due_at timestamptz,
  out result_position bigint,
  out result jsonb
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who     record;
  v_message kirby.message;
  v_now     record;
begin
  select * into v_who from kirby.bearer();
  select m.* into v_message
    from kirby.topic t
    join kirby.produced o on o.topic_id = t.id and o.id = p_id
    join kirby.message m on m.topic_id = t.id and m.lane = o.lane and m.position = o.position
   where t.environment_id = v_who.environment_id and t.name = p_topic;
  if not found then
    status := 'unknown';
    return;
  end if;
  position := v_message.position;

  -- In one look: between two of them it may have been done.
  select cur.position as handed_out, gone.position is not null as revoked,
         c.id is not null as claimed, c.attempt as claim_attempt,
         v_message.position <= c.upto and c.lease_until > '-infinity' as in_hands,
         d.reason, d.parked_at, d.attempt as due_attempt, d.error, nullif(d.due_at, 'infinity') as due_at,
         answer.position as answer, answer.payload
    into v_now
    from (select) one
    left join kirby.subscription s on s.topic_id = v_message.topic_id and s.name = 'workers'
    left join kirby.cursor cur on cur.subscription_id = s.id and cur.lane = v_message.lane
    left join kirby.due d on d.subscription_id = s.id and d.position = v_message.position
    left join lateral (
         select * from kirby.claim c
          where c.subscription_id = s.id and c.lane = v_message.lane
            and v_message.position between c.first and c.last and (c.kind = 'due' or d.position is null)
          limit 1) c on true
    left join kirby.retracted gone
           on gone.topic_id = v_message.topic_id and gone.position = v_message.position
    left join lateral (
         select m.position, m.payload
           from kirby.topic t
           join kirby.result r on r.topic_id = t.id and r.task = v_message.position
           join kirby.message m on m.topic_id = t.id and m.lane = r.lane and m.position = r.position
          where t.environment_id = v_who.environment_id and t.name = p_topic || '.results') answer on true;

  if v_now.answer is not null then
    result_position := v_now.answer;
    result := v_now.payload;
    status := result ->> 'status';
    error := result #>> '{error,message}';
    return;
  elsif v_now.revoked then
    status := 'revoked';
    return;
  end if;

  attempt := coalesce(v_now.claim_attempt, v_now.due_attempt, 0);
  error := v_now.error;
  due_at := v_now.due_at;
  status := case
    when v_now.parked_at is not null then 'failed'
    when v_now.in_hands then 'running'
    when v_now.reason = 'delayed' then 'scheduled'
    when v_now.reason in ('failed', 'killed') then 'retrying'
    when v_now.reason in ('waiting', 'ready', 'queued', 'limited') then 'pending'
    when v_now.claimed then 'pending'  -- given back, or behind one that is suspect
    when v_message.expires_at <= kirby.now() then 'expired'
    when v_now.handed_out >= v_message.position then 'succeeded'
    when v_message.deliver_at > kirby.now() then 'scheduled'
    else 'pending'
  end;
  if status = 'scheduled' then
    due_at := v_message.deliver_at;
  end if;
end;
$$;
