-- A task was given up since its process died, or was ended, with it: nobody is left to say so, so that is
-- its result. Nothing happens for what is no task, or keeps no result.
create or replace function kirby.answer_killed(
  p_subscription kirby.subscription,
  p_lane smallint,
  p_position bigint,
  p_error text
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_topic kirby.topic;
  v_task  jsonb;
  v_error jsonb := jsonb_build_object('type', 'Killed', 'message', p_error, 'traceback', '');
begin
  select * into v_topic from kirby.topic where id = p_subscription.topic_id;
  if p_subscription.name <> 'workers' or v_topic.name not like 'task.%' then
    return;
  end if;
  select m.payload into v_task from kirby.message m
   where m.topic_id = v_topic.id and m.lane = p_lane and m.position = p_position;
  if jsonb_typeof(v_task -> 'id') = 'string' and v_task -> 'result' is distinct from 'false' then
    perform kirby.append_messages(v_topic.environment_id, null, jsonb_build_object(
      v_topic.name || '.results', jsonb_build_object('m', jsonb_build_array(jsonb_build_object(
        'v', jsonb_build_object('id', v_task -> 'id', 'status', 'failed', 'error', v_error),
        'p', jsonb_build_array(p_position), 'r', p_position)))));
  end if;
end;
$$;
