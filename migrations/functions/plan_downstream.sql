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
  set jit = off
as $$
declare
  v_made record;
  v_plan jsonb;
begin
  select coalesce(array_agg(d.kind), '{}') as kinds, array_agg(d.place_id) as places, array_agg(d.position) as positions,
         array_agg(d.key) as keys, array_agg(d.depth) as depths, array_agg(d.job) as jobs
    into v_made
    from kirby.descendants(p_topic.environment_id, p_topic.id, p_after, coalesce(p_until, 9223372036854775807),
                           p_keys, p_only) d;
  with made as materialized (
    select d.* from unnest(v_made.kinds, v_made.places, v_made.positions, v_made.keys, v_made.depths, v_made.jobs)
                    as d (kind, place_id, position, key, depth, job)
  ), message as materialized (
    select d.place_id, d.job, m.recorded_at
      from made d join kirby.message m on m.topic_id = d.place_id and m.position = d.position
     where d.kind = 'message' and not coalesce(m.headers, '{}') ? 'replay'
  ), mutation as materialized (
    select d.place_id, d.job, d.key, d.position, m.recorded_at,
           coalesce(m.headers, '{}') ? 'replay' as again
      from made d join kirby.state_mutation m on m.state_id = d.place_id and m.key = d.key and m.position = d.position
     where d.kind = 'mutation'
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
     where not coalesce(m.headers, '{}') ? 'restored'
       and not exists (select from mutation c where c.place_id = f.place_id and c.position = m.position)
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
    'jobs', (select coalesce(jsonb_agg(distinct d.job order by d.job), '[]') from made d where d.job is not null),
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
