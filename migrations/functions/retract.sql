-- Take a message back before it is handed out, by the id that it was published under; true if nobody had
-- it in hands yet, or was done with it. Otherwise nothing changes. KB002: no message has this id. KB003.
create or replace function kirby.retract(p_topic text, p_id text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who          record;
  v_message      kirby.message;
  v_subscription kirby.subscription;
  v_cursor       kirby.cursor;
  v_filed        integer[] := '{}';
begin
  select * into v_who from kirby.principal();
  select m.* into v_message
    from kirby.topic t
    join kirby.produced o on o.topic_id = t.id and o.id = p_id
    join kirby.message m on m.topic_id = t.id and m.lane = o.lane and m.position = o.position
   where t.environment_id = v_who.environment_id and t.name = p_topic;
  if not found then
    perform kirby.fail('KB002', format('topic %s has no message with id %s', p_topic, p_id));
  elsif exists (select from kirby.retracted r
                 where r.topic_id = v_message.topic_id and r.position = v_message.position) then
    return true;
  end if;

  -- With the cursors locked, a range was either claimed before, or will be sifted. What is delivered by
  -- itself is locked before it is looked at whether somebody has it.
  for v_subscription in
    select s.* from kirby.subscription s where s.topic_id = v_message.topic_id order by s.id
  loop
    select * into v_cursor from kirby.cursor c
     where c.subscription_id = v_subscription.id and c.lane = v_message.lane
       for no key update;
    continue when v_cursor.position < v_message.position and not exists (  -- a lane that was moved back may be behind
      select from kirby.due d
       where d.subscription_id = v_subscription.id and d.position = v_message.position);
    perform from kirby.due d
      where d.subscription_id = v_subscription.id and d.position = v_message.position and d.reason <> 'done'
        for update;
    if not found or exists (
      select from kirby.claim c
       where c.subscription_id = v_subscription.id and c.kind = 'due' and c.lane = v_message.lane
         and c.first = v_message.position
    ) then
      return false;
    end if;
    v_filed := v_filed || v_subscription.id;
  end loop;

  for v_subscription in
    select s.* from kirby.subscription s where s.id = any (v_filed) order by s.id
  loop
    perform kirby.close_due(v_subscription, v_message.position);
  end loop;
  update kirby.topic set sifted = true where id = v_message.topic_id and not sifted;
  insert into kirby.retracted (topic_id, position) values (v_message.topic_id, v_message.position)
      on conflict do nothing;
  return true;
end;
$$;
