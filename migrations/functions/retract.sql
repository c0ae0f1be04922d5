-- Take a message back before it is handed out, by the id that it was published under; true if nobody had
-- it in hands yet, or was done with it. KB002: no message has this id. KB003.
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
  v_in_time      boolean := true;
begin
  select * into v_who from kirby.principal();
  select m.* into v_message
    from kirby.topic t
    join kirby.produced o on o.topic_id = t.id and o.id = p_id
    join kirby.message m on m.topic_id = t.id and m.lane = o.lane and m.position = o.position
   where t.environment_id = v_who.environment_id and t.name = p_topic;
  if not found then
    perform kirby.fail('KB002', format('topic %s has no message with id %s', p_topic, p_id));
  end if;

  -- With the cursors locked, a range was either claimed before, or will be sifted.
  for v_subscription in
    select s.* from kirby.subscription s where s.topic_id = v_message.topic_id order by s.id
  loop
    select * into v_cursor from kirby.cursor c
     where c.subscription_id = v_subscription.id and c.lane = v_message.lane
       for no key update;
    continue when v_cursor.position < v_message.position;
    perform from kirby.due d
      where d.subscription_id = v_subscription.id and d.position = v_message.position and d.reason <> 'done'
        and not exists (select from kirby.claim c
                         where c.subscription_id = d.subscription_id and c.kind = 'due'
                           and c.first = d.position)
        for update;
    if found then
      perform kirby.close_due(v_subscription, v_message.position);
    else
      v_in_time := false;
    end if;
  end loop;

  update kirby.topic set sifted = true where id = v_message.topic_id and not sifted;
  if v_in_time then
    insert into kirby.retracted (topic_id, position) values (v_message.topic_id, v_message.position)
        on conflict do nothing;
  end if;
  return v_in_time;
end;
$$;
