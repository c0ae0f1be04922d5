-- Set how long the messages of a topic are kept (NULL: for ever), and whether those may go that a
-- subscription has not read. Audited. KB001: not a span of time above zero. KB002: no such topic.
create or replace function kirby.keep_topic(
  p_topic_id integer,
  p_keep interval,
  p_even_unread boolean,
  p_actor text
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name   text;
  v_before kirby.topic_retention;
  v_after  kirby.topic_retention;
begin
  select e.name || '/' || t.name into v_name
    from kirby.topic t join kirby.environment e on e.id = t.environment_id where t.id = p_topic_id;
  if not found then
    perform kirby.fail('KB002', format('there is no topic %s', p_topic_id));
  elsif p_keep <= interval '0' then
    perform kirby.fail('KB001', format('messages cannot be kept for %s: give a span of time above zero', p_keep));
  end if;
  insert into kirby.topic_retention (topic_id) values (p_topic_id) on conflict do nothing;
  select * into v_before from kirby.topic_retention r where r.topic_id = p_topic_id for update;
  update kirby.topic_retention r set keep = p_keep, even_unread = p_even_unread
   where r.topic_id = p_topic_id
  returning * into v_after;
  if (v_before.keep, v_before.even_unread) is distinct from (v_after.keep, v_after.even_unread) then
    perform kirby.audit(p_actor, 'retention_set', 'topic/' || v_name,
      p_before => jsonb_build_object('keep', v_before.keep, 'even_unread', v_before.even_unread),
      p_after => jsonb_build_object('keep', v_after.keep, 'even_unread', v_after.even_unread));
  end if;
end;
$$;
