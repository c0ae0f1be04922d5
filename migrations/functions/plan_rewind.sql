-- What a rewind would do: the messages of a topic above p_after, up to p_until (NULL: all that was handed out), of
-- these keys (NULL: all), come again to these subscriptions (NULL: all). Nothing moves. Counts are exact: of each
-- subscription what it settled (messages) and what it never did (fresh); of topics and states downstream what was
-- made from these messages (kirby.descendants), replays of earlier rewinds left out.
-- p_exact: states that are set back come out exact: from an earlier point if it has to be (kirby.exact_point).
-- p_inexact: it may begin although they do not.
-- p_moment: what p_after was found for. KB001: retention has passed it; nobody reads it. KB002: no such subscription.
create or replace function kirby.plan_rewind(
  p_topic_id integer,
  p_after bigint,
  p_until bigint default null,
  p_keys text[] default null,
  p_only text[] default null,
  p_states boolean default false,
  p_rate double precision default null,
  p_moment timestamptz default null,
  p_exact boolean default false,
  p_inexact boolean default false
)
  returns jsonb
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_topic    kirby.topic;
  v_first    record;
  v_name     text;
  v_readers  jsonb;
  v_down     jsonb;
  v_note     jsonb;
  v_after    bigint := p_after;
  v_messages bigint;
begin
  perform kirby.check_isolation();
  select * into v_topic from kirby.topic where id = p_topic_id;
  v_first := kirby.earliest(p_topic_id);
  if p_until <= p_after then
    perform kirby.fail('KB001', format('the end of the rewind, position %s, lies before its beginning, position %s', p_until, p_after + 1));
  elsif p_rate <= 0 then
    perform kirby.fail('KB001', format('the rate is %s: messages a second, more than none', p_rate));
  end if;
  perform kirby.check_earliest(p_topic_id, p_after, p_moment);
  for v_name in
    select n.name from unnest(p_only) as n (name)
     where not exists (select from kirby.subscription s where s.topic_id = p_topic_id and s.name = n.name)
  loop
    perform kirby.fail('KB002', format('topic %s has no subscription %s', v_topic.name, v_name));
  end loop;

  if p_states then
    v_note := kirby.exact_note(v_topic, p_after, p_until, p_keys, p_only);
  end if;
  if p_exact and v_note ->> 'why' is not null then
    perform kirby.fail('KB001', v_note ->> 'text');
  elsif p_exact and v_note is not null then
    v_after := v_note ->> 'after';
    v_note := null;
  end if;
  v_readers := kirby.plan_readers(v_topic, v_after, p_until, p_keys, p_only);
  if v_readers = '[]' then
    perform kirby.fail('KB001', format('nothing to rewind: topic %s has no subscriptions', v_topic.name));
  end if;
  v_down := kirby.plan_downstream(v_topic, v_after, p_until, p_keys, p_only);
  select count(*) into v_messages
    from (select c.lane, max(greatest(c.position, l.upto)) as top
            from kirby.rewound(p_topic_id, p_only) s
            join kirby.cursor c on c.subscription_id = s.id
            left join kirby.rewind_lane l on l.subscription_id = s.id and l.lane = c.lane and l.rewind_id = c.rewind_id
           group by c.lane) h
    join kirby.message m on m.topic_id = p_topic_id and m.lane = h.lane
                        and m.position > v_after and m.position <= least(p_until, h.top)
   where (p_keys is null or m.key = any (p_keys)) and not (v_topic.sifted and kirby.is_gone(m));
  return v_down || jsonb_build_object(
    'environment', (select e.name from kirby.environment e where e.id = v_topic.environment_id),
    'topic', v_topic.name, 'after', v_after, 'until', p_until, 'keys', to_jsonb(p_keys), 'only', to_jsonb(p_only),
    'with_states', p_states, 'inexact', v_note, 'accepted', p_inexact, 'rate', p_rate, 'messages', v_messages, 'subscriptions', v_readers,
    'seconds', greatest((v_down ->> 'seconds')::float8, v_messages / p_rate),
    'earliest', v_first.position, 'earliest_at', v_first.at,
    'warnings', kirby.plan_warnings(v_topic, v_readers, v_down, v_note, p_states));
end;
$$;
