-- Keep a plan (kirby.plan_rewind) until it is begun; returns its id. Audited. KB001: a plan that moves nothing,
-- or one after which states would not be exact, and nobody has said that this is accepted.
create or replace function kirby.propose_rewind(p_plan jsonb, p_actor text, p_reason text default '')
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_topic kirby.topic;
  v_names text[] := array(select s ->> 'name' from jsonb_array_elements(p_plan -> 'subscriptions') s);
  v_id    bigint;
begin
  select t.* into v_topic
    from kirby.topic t join kirby.environment e on e.id = t.environment_id
   where e.name = p_plan ->> 'environment' and t.name = p_plan ->> 'topic';
  if not exists (select from jsonb_array_elements(p_plan -> 'subscriptions') s
                  where (s ->> 'messages')::bigint + (s ->> 'fresh')::bigint > 0) then
    perform kirby.fail('KB001', format('nothing to rewind: no subscription of topic %s was given any of these messages', v_topic.name));
  end if;
  if p_plan #>> '{inexact,text}' is not null and not coalesce((p_plan ->> 'accepted')::boolean, false) then
    perform kirby.fail('KB001', p_plan #>> '{inexact,text}');
  end if;
  insert into kirby.rewind (environment_id, topic_id, after, until, keys, subscriptions, states, inexact, rate, plan, actor, reason)
  select v_topic.environment_id, v_topic.id, p.after, p.until, p.keys, v_names, p.with_states, coalesce(p.accepted, false), p.rate, p_plan,
         p_actor, coalesce(p_reason, '')
    from jsonb_to_record(p_plan) as p (after bigint, until bigint, keys text[], with_states boolean, accepted boolean, rate float8)
  returning id into v_id;
  perform kirby.audit(p_actor, 'rewind_planned', 'rewind/' || v_id, p_after => p_plan - 'document', p_reason => p_reason);
  return v_id;
end;
$$;
