-- What a notice says of an incident, as it is now: what people need to know without opening a page. p_more is put
-- beside it as it is. A storm names the incidents in it, at most 50 of them.
create or replace function kirby.notice_of(p_incident_id bigint, p_event text, p_more jsonb)
  returns jsonb
  language sql
  stable
as $$
  select jsonb_build_object(
           'incident', i.id, 'event', p_event, 'kind', i.kind, 'title', i.title, 'status', i.status,
           'environment', e.name, 'job', j.name, 'job_description', nullif(j.description, ''),
           'details', i.details, 'count', i.count, 'flapping', i.flapping,
           'run', i.run_id, 'opened_at', i.opened_at, 'updated_at', i.updated_at,
           'resolved_at', i.resolved_at, 'resolved_by', i.resolved_by,
           'acknowledged_by', i.acknowledged_by, 'at', kirby.now(),
           'log', coalesce(log.lines, '[]'), 'told', coalesce(told.incidents, '[]'),
           'told_count', told.count, 'more', coalesce(p_more, '{}'))
    from kirby.incident i
    left join kirby.environment e on e.id = i.environment_id
    left join kirby.deployment d on d.id = i.deployment_id
    left join kirby.job j on j.id = d.job_id
   cross join lateral (
         select jsonb_agg(left(l.text, 500) order by l.position) as lines
           from (select position, text from kirby.log_line
                  where run_id = i.run_id order by position desc limit 15) l) log
   cross join lateral (
         select count(*) as count,
                jsonb_agg(jsonb_build_object('incident', t.id, 'kind', t.kind, 'title', t.title, 'job', t.job)
                          order by t.id) filter (where t.n <= 50) as incidents
           from (select o.id, o.kind, o.title, oj.name as job, row_number() over (order by o.id) as n
                   from kirby.incident o
                   left join kirby.deployment od on od.id = o.deployment_id
                   left join kirby.job oj on oj.id = od.job_id
                  where o.told_in = i.id) t) told
   where i.id = p_incident_id;
$$;
