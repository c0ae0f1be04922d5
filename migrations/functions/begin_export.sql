-- Begin to export topics and states: fix what leaves, and say so in the audit log. p_asked: {"topics": […],
-- "states": […] or true (all of them), "since" or "since_ago" (seconds), "until" or "until_ago", "after", "keys",
-- "limit"}. Topics end where they may be read to now. States are as of just before the first of these messages;
-- without topics as of now. Returns the plan: {"export", "installation", "environment", "by", "exported", "at",
-- "topics": {name: {"after", "upto", "masks", "deny"}}, "states": {name: {"masks", "deny"}}}.
-- KB001: nothing is asked for. KB002: no such topic or state. KB003, KB007.
create or replace function kirby.begin_export(p_asked jsonb, p_actor text default null)
  returns jsonb
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_who     record;
  v_now     timestamptz := kirby.now();
  v_since   timestamptz := coalesce((p_asked ->> 'since')::timestamptz, v_now - make_interval(secs => (p_asked ->> 'since_ago')::float8));
  v_until   timestamptz := coalesce((p_asked ->> 'until')::timestamptz, v_now - make_interval(secs => (p_asked ->> 'until_ago')::float8));
  v_names   text[];
  v_name    text;
  v_topic   kirby.topic;
  v_id      integer;
  v_mask    kirby.mask;
  v_after   bigint;
  v_horizon bigint;
  v_last    bigint;
  v_counted bigint;
  v_at      bigint;
  v_topics  jsonb := '{}';
  v_states  jsonb := '{}';
  v_plan    jsonb;
  v_export  bigint;
begin
  v_who := kirby.exporter(p_actor);
  update kirby.export x set salt = null, ended_at = v_now
   where x.ended_at is null and x.begun_at < v_now - interval '7 days';

  for v_name in select distinct jsonb_array_elements_text(coalesce(p_asked -> 'topics', '[]')) loop
    select * into v_topic from kirby.topic t where t.environment_id = v_who.environment_id and t.name = v_name;
    if not found then
      perform kirby.fail('KB002', format('there is no topic %s in %s', v_name, v_who.environment));
    end if;
    v_mask := null;
    select * into v_mask from kirby.mask m where m.topic_id = v_topic.id;
    v_after := greatest((p_asked ->> 'after')::bigint, 0,
                        (select r.gone_to from kirby.topic_retention r where r.topic_id = v_topic.id),
                        case when v_since is not null then kirby.first_since(v_topic.id, v_since) - 1 end);
    -- As kirby.read: of what is counted, nothing beyond v_last was recorded before v_until.
    v_horizon := kirby.horizon(v_topic.id);
    v_last := v_horizon;
    v_counted := v_horizon;
    if v_until is not null then
      select kirby.counted_to(v_topic.id),
             least(v_horizon, coalesce((select i.position from kirby.time_index i where i.earliest < v_until
                                         order by i.position desc limit 1), 0))
        into v_counted, v_last;
    end if;
    v_at := least(v_at, v_after);
    v_topics := v_topics || jsonb_build_object(v_name, jsonb_build_object(
      'after', v_after, 'upto', greatest(v_after, v_horizon), 'last', v_last, 'counted', v_counted,
      'masks', coalesce(v_mask.rules, '{}'), 'deny', coalesce(v_mask.deny, false)));
  end loop;

  v_names := case when p_asked -> 'states' = 'true'
             then array(select s.name::text from kirby.state s where s.environment_id = v_who.environment_id)
             else array(select jsonb_array_elements_text(coalesce(nullif(p_asked -> 'states', 'false'), '[]'))) end;
  foreach v_name in array v_names loop
    select s.id into v_id from kirby.state s where s.environment_id = v_who.environment_id and s.name = v_name;
    if not found then
      perform kirby.fail('KB002', format('there is no state %s in %s', v_name, v_who.environment));
    end if;
    perform kirby.check_begins(v_id, v_at);
    v_mask := null;
    select * into v_mask from kirby.mask m where m.state_id = v_id;
    v_states := v_states || jsonb_build_object(v_name, jsonb_build_object(
      'masks', coalesce(v_mask.rules, '{}'), 'deny', coalesce(v_mask.deny, false)));
  end loop;
  if v_topics = '{}' and v_states = '{}' then
    perform kirby.fail('KB001', 'nothing to export: name a topic or a state');
  end if;

  v_plan := jsonb_build_object(
    'installation', (select i.id from kirby.installation i), 'environment', v_who.environment, 'by', v_who.actor,
    'exported', v_now, 'at', coalesce(v_at, (select p.last_value from kirby.position p)), 'since', v_since, 'until', v_until,
    'keys', p_asked -> 'keys', 'limit', p_asked -> 'limit', 'topics', v_topics, 'states', v_states);
  insert into kirby.export (environment_id, actor, plan, salt)
  values (v_who.environment_id, v_who.actor, v_plan, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
  returning id into v_export;
  perform kirby.audit(v_who.actor, 'export_begun', 'export/' || v_export, null, jsonb_strip_nulls(v_plan));
  return jsonb_build_object('export', v_export) || v_plan;
end;
$$;
