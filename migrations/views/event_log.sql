-- The one timeline: every event of every log, by position (DESIGN promise 3).
create or replace view kirby.event_log as
  select m.position, 'message' as log, e.name as environment, t.name as subject, m.key,
         'published' as type, m.payload as data, m.run_id, null::text as actor, m.recorded_at
    from kirby.message m
    join kirby.topic t on t.id = m.topic_id
    join kirby.environment e on e.id = t.environment_id
  union all
  select j.position, 'job_event', e.name, b.name, null, j.type, j.data, j.run_id, j.actor, j.recorded_at
    from kirby.job_event j
    left join kirby.deployment d on d.id = j.deployment_id
    left join kirby.job b on b.id = d.job_id
    left join kirby.environment e on e.id = d.environment_id
  union all
  select l.position, 'log_line', null, l.stream, null, l.level, to_jsonb(l.text), l.run_id, null, l.at
    from kirby.log_line l
  union all
  select u.position, 'state_mutation', e.name, s.name, u.key, u.op, u.value, u.run_id, null, u.recorded_at
    from kirby.state_mutation u
    join kirby.state s on s.id = u.state_id
    join kirby.environment e on e.id = s.environment_id
  union all
  select a.position, 'secret_access', null, a.secret_id::text, null, a.verb,
         jsonb_build_object('allowed', a.allowed, 'version', a.version, 'reason', a.reason),
         a.run_id, a.actor, a.recorded_at
    from kirby.secret_access a
  union all
  select a.position, 'audit_event', null, a.object, null, a.verb,
         jsonb_build_object('before', a.before, 'after', a.after, 'reason', a.reason),
         null, a.actor, a.recorded_at
    from kirby.audit_event a;
