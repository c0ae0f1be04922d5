-- Give a topic more lanes from a position ahead on, which is returned; those who wrote to it before this
-- commits still use the old number, and have to be gone before the log gets there (topics.set_lanes).
-- KB001: not more lanes, or a topic with bands. KB004: the last change has not taken effect yet.
create or replace function kirby.change_lanes(p_topic_id integer, p_lanes integer, p_actor text)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_topic kirby.topic;
  v_last  bigint;
  v_from  bigint;
begin
  select * into v_topic from kirby.topic where id = p_topic_id for no key update;
  select last_value into v_last from kirby.position;
  if p_lanes not between v_topic.lanes + 1 and 1024 then
    perform kirby.fail('KB001', format('topic %s has %s lanes: it can get more, up to 1024, not %s', v_topic.name, v_topic.lanes, p_lanes));
  elsif v_topic.bands > 1 then
    perform kirby.fail('KB001', format('topic %s has priorities: its lanes stay as they are', v_topic.name));
  elsif v_topic.lanes_from > v_last then
    perform kirby.fail('KB004', format('the lanes of topic %s are just being changed by somebody else', v_topic.name));
  end if;
  v_from := v_last + 1000000;

  update kirby.topic set old_lanes = lanes, lanes = p_lanes, lanes_from = v_from where id = p_topic_id;
  insert into kirby.lane_change (topic_id, position, before, lanes) values (p_topic_id, v_from, v_topic.lanes, p_lanes);
  insert into kirby.cursor (subscription_id, lane)
  select s.id, l.lane
    from kirby.subscription s, generate_series(v_topic.lanes, p_lanes - 1) as l (lane)
   where s.topic_id = p_topic_id
     and not exists (select from kirby.cursor c where c.subscription_id = s.id and c.lane = l.lane);
  perform kirby.audit(p_actor, 'lanes_changed', 'topic/' || v_topic.name,
                      p_before => jsonb_build_object('lanes', v_topic.lanes),
                      p_after => jsonb_build_object('lanes', p_lanes, 'from', v_from));
  return v_from;
end;
$$;
