-- Of a plan: what was made from the messages that come again. Topics, with the jobs that wrote to them; states, with
-- how many versions of how many keys, and versions of these keys since that come from elsewhere; effects; jobs; and
-- in how many seconds of work the slowest job did it the first time.
create or replace function kirby.plan_downstream(
  p_topic kirby.topic,
  p_after bigint,
  p_until bigint,
  p_keys text[],
  p_only text[]
)
  returns jsonb
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_made record;
  v_plan jsonb;
begin
  select array_agg(d.place_id) filter (where d.kind = 'message') as topics,
         array_agg(d.position) filter (where d.kind = 'message') as messages,
         array_agg(d.job) filter (where d.kind = 'message') as writers,
         min(d.position) filter (where d.kind = 'message') as low,
         max(d.position) filter (where d.kind = 'message') as high,
         array_agg(d.place_id) filter (where d.kind = 'mutation') as states,
         array_agg(d.key) filter (where d.kind = 'mutation') as keys,
         array_agg(d.position) filter (where d.kind = 'mutation') as versions,
         array_agg(d.job) filter (where d.kind = 'mutation') as makers,
         array_agg(distinct d.job) filter (where d.job is not null) as jobs
    into v_made
    from kirby.descendants(p_topic.environment_id, p_topic.id, p_after, coalesce(p_until, 9223372036854775807),
                           p_keys, p_only) d;
  -- One pass over the log and a hash: lists of their own let the planner see how long they are.
  with message as materialized (
    select d.place_id, d.job, m.recorded_at
      from unnest(v_made.topics, v_made.messages, v_made.writers) as d (place_id, position, job)
      join kirby.message m on m.position + 0 = d.position and m.topic_id = d.place_id
     where m.position between v_made.low and v_made.high and not coalesce(m.headers, '{}') ? 'replay'
  ), mutation as materialized (
    select d.place_id, d.job, d.key, d.position, m.recorded_at,
           coalesce(m.headers, '{}') ? 'replay' as again
      from unnest(v_made.states, v_made.keys, v_made.versions, v_made.makers) as d (place_id, key, position, job)
      join kirby.state_mutation m on m.state_id = d.place_id and m.key = d.key and m.position = d.position
  ), first as materialized (
    select c.place_id, c.key, min(c.position) as position from mutation c group by c.place_id, c.key
  ), other as (
    select f.place_id, count(*) as versions, array_agg(distinct w.job order by w.job) filter (where w.job is not null) as jobs
      from first f
      join kirby.state_mutation m on m.state_id = f.place_id and m.key = f.key and m.position > f.position
     cross join lateral (
           select coalesce(m.headers #>> '{via,-1,0}', (
                    select j.name from kirby.run r
                      join kirby.deployment d on d.id = r.deployment_id join kirby.job j on j.id = d.job_id
                     where r.id = m.run_id)) as job) w
     where m.headers #> '{restored,rewind}' is null  -- what a rewind set back itself
       and not m.position = any (v_made.versions)
     group by f.place_id
  )
  select jsonb_build_object(
    'topics', (select coalesce(jsonb_agg(to_jsonb(o) order by o.name), '[]')
                 from (select t.name, count(*) as messages,
                              coalesce(array_agg(distinct m.job order by m.job) filter (where m.job is not null), '{}') as jobs
                         from message m join kirby.topic t on t.id = m.place_id group by t.name) o),
    'states', (select coalesce(jsonb_agg(to_jsonb(o) order by o.name), '[]')
                 from (select s.name, count(*) filter (where not c.again) as mutations, count(distinct c.key) as keys,
                              coalesce(array_agg(distinct c.job order by c.job) filter (where c.job is not null), '{}') as jobs,
                              coalesce(max(x.versions), 0) as others, coalesce(max(x.jobs), '{}') as other_jobs
                         from mutation c
                         join kirby.state s on s.id = c.place_id
                         left join other x on x.place_id = c.place_id
                        group by s.name) o),
    'jobs', to_jsonb(coalesce(v_made.jobs, '{}')),
    'effects', kirby.plan_effects(p_topic, p_after, p_until, p_keys, p_only),
    'seconds', (select max(o.seconds)
                  from (select count(distinct date_trunc('second', w.recorded_at))::float8 as seconds
                          from (select m.job, m.recorded_at from message m
                                 union all
                                select c.job, c.recorded_at from mutation c where not c.again) w
                         group by w.job) o))
    into v_plan;
  return v_plan;
end;
$$;
