-- Take a change of lanes back that has not taken effect; false if the log has got there.
create or replace function kirby.undo_lanes(p_topic_id integer, p_actor text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_topic kirby.topic;
  v_old   record;
begin
  select * into v_topic from kirby.topic where id = p_topic_id for no key update;
  if v_topic.lanes_from <= (select last_value from kirby.position) then
    return false;
  end if;
  delete from kirby.lane_change where topic_id = p_topic_id and position = v_topic.lanes_from;
  select l.position, l.before into v_old
    from kirby.lane_change l where l.topic_id = p_topic_id order by l.position desc limit 1;
  update kirby.topic set lanes = old_lanes, old_lanes = v_old.before, lanes_from = coalesce(v_old.position, 0)
   where id = p_topic_id;
  delete from kirby.cursor c using kirby.subscription s
   where s.id = c.subscription_id and s.topic_id = p_topic_id and c.lane >= v_topic.old_lanes;
  perform kirby.audit(p_actor, 'lanes_change_undone', 'topic/' || v_topic.name,
                      p_after => jsonb_build_object('lanes', v_topic.old_lanes));
  return true;
end;
$$;
