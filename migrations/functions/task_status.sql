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
  v_reader  integer;
  v_cursor  bigint;
  v_due     kirby.due;
  v_claim   kirby.claim;
begin
  select * into v_who from kirby.principal();
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

  select m.position, m.payload into result_position, result
    from kirby.topic t
    join kirby.result r on r.topic_id = t.id and r.task = v_message.position
    join kirby.message m on m.topic_id = t.id and m.lane = r.lane and m.position = r.position
   where t.environment_id = v_who.environment_id and t.name = p_topic || '.results';
  if found then
    status := result ->> 'status';
    error := result #>> '{error,message}';
    return;
  elsif exists (select from kirby.retracted r
                 where r.topic_id = v_message.topic_id and r.position = v_message.position) then
    status := 'revoked';
    return;
  end if;

  select s.id, c.position into v_reader, v_cursor
    from kirby.subscription s
    join kirby.cursor c on c.subscription_id = s.id and c.lane = v_message.lane
   where s.topic_id = v_message.topic_id and s.name = 'workers';
  select * into v_due from kirby.due d
   where d.subscription_id = v_reader and d.position = v_message.position;
  select * into v_claim from kirby.claim c
   where c.subscription_id = v_reader and c.lane = v_message.lane
     and v_message.position between c.first and c.upto and (c.kind = 'due' or v_due.position is null);

  attempt := coalesce(v_claim.attempt, v_due.attempt, 0);
  error := v_due.error;
  due_at := nullif(v_due.due_at, 'infinity');
  status := case
    when v_due.parked_at is not null then 'failed'
    when v_claim.lease_until = '-infinity' then 'pending'  -- given back, and not yet taken again
    when v_claim.id is not null then 'running'
    when v_due.reason = 'delayed' then 'scheduled'
    when v_due.reason in ('failed', 'killed') then 'retrying'
    when v_due.reason in ('waiting', 'ready', 'queued', 'limited') then 'pending'
    when v_message.expires_at <= kirby.now() then 'expired'
    when v_cursor >= v_message.position then 'succeeded'
    when v_message.deliver_at > kirby.now() then 'scheduled'
    else 'pending'
  end;
  if status = 'scheduled' then
    due_at := v_message.deliver_at;
  end if;
end;
$$;
