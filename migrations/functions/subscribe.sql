-- Open a subscription of a topic under a name, from the topic's beginning if it is new. What is to
-- happen to a message that fails (p_on_failure: block its key, or park and go on; p_max_attempts) is
-- changed if it is given.
-- KB006: it exists with another mode. KB001: a bad name. KB003.
create or replace function kirby.subscribe(
  p_topic text,
  p_name text,
  p_mode text default 'ordered',
  p_on_failure text default null,
  p_max_attempts integer default null,
  out subscription_id integer,
  out topic_id integer
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who  record;
  v_mode text;
begin
  if p_name is null or p_name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$' then
    perform kirby.fail('KB001', format('%L is not a name for a subscription: letters, digits, dots, dashes and underscores, at most 200', p_name));
  elsif p_mode not in ('ordered', 'shared') then
    perform kirby.fail('KB001', format('%L is not a mode of a subscription: ordered or shared', p_mode));
  end if;
  if p_on_failure not in ('block', 'park') then
    perform kirby.fail('KB001', format('%L is not what can be done on a failure: block or park', p_on_failure));
  elsif p_max_attempts not between 1 and 1000 then
    perform kirby.fail('KB001', format('max_attempts is %s: from 1 to 1000', p_max_attempts));
  end if;
  select * into v_who from kirby.principal();
  topic_id := case when p_topic ~ '^state\.[a-z][a-z0-9_]{0,49}$' and p_topic !~ '_history$'
                   then kirby.open_feed(v_who.environment_id, substr(p_topic, 7))  -- what a state changes
                   else kirby.topic_id(v_who.environment_id, p_topic) end;

  insert into kirby.subscription (topic_id, name, mode) values (topic_id, p_name, p_mode)
      on conflict do nothing;
  if found then
    perform from kirby.topic t where t.id = topic_id for share;  -- its lanes are not changed meanwhile
  end if;
  select s.id, s.mode into subscription_id, v_mode
    from kirby.subscription s where s.topic_id = subscribe.topic_id and s.name = p_name;
  if v_mode <> p_mode then
    perform kirby.fail('KB006', format('subscription %s of topic %s is %s, not %s', p_name, p_topic, v_mode, p_mode));
  end if;

  update kirby.subscription s
     set on_failure = coalesce(p_on_failure, s.on_failure),
         max_attempts = coalesce(p_max_attempts, s.max_attempts)
   where s.id = subscribe.subscription_id
     and (s.on_failure, s.max_attempts) is distinct from
         (coalesce(p_on_failure, s.on_failure), coalesce(p_max_attempts, s.max_attempts));
  if found and p_on_failure = 'park' then
    -- What is parked holds its key no longer, and nothing else would free what waits for it.
    perform kirby.free_key(s, w.key)
       from kirby.subscription s
      cross join lateral (select distinct d.key from kirby.due d
                           where d.subscription_id = s.id and d.reason = 'waiting') w
      where s.id = subscribe.subscription_id;
  end if;

  if (select count(*) from kirby.cursor c where c.subscription_id = subscribe.subscription_id)
     >= (select t.lanes from kirby.topic t where t.id = subscribe.topic_id) then
    return;
  end if;
  perform from kirby.subscription s where s.id = subscribe.subscription_id for no key update;
  -- Behind what retention removed; the lock that the reference to the topic took keeps it from removing more.
  insert into kirby.cursor (subscription_id, lane, position, delivered)
  select subscribe.subscription_id, l.lane, coalesce(r.gone_to, 0), coalesce(n.gone, 0)
    from kirby.topic t
   cross join lateral generate_series(0, t.lanes - 1) as l (lane)
    left join kirby.topic_retention r on r.topic_id = t.id
    left join kirby.topic_count n on n.topic_id = t.id and n.lane = l.lane
   where t.id = subscribe.topic_id
     and not exists (select from kirby.cursor c
                      where c.subscription_id = subscribe.subscription_id and c.lane = l.lane);
end;
$$;
