-- The flow of a part of the log: what each job made of which topic into which topic or state, by the hour and by
-- the stretch of 5,000 positions, with the lowest and the highest parent. Messages from one position (not with it)
-- to another, and mutations. Job, release and topic are the newest hop of via; else the job of the run. The messages of
-- a state's feed have the headers of its mutations, which they were made from: no topic.
create or replace function kirby.flow_between(
  p_messages_after bigint,
  p_messages_to bigint,
  p_mutations_after bigint,
  p_mutations_to bigint
)
  returns table (environment_id smallint, hour timestamptz, source_id integer, job text, release text, kind text,
                 place_id integer, stretch bigint, made bigint, replays bigint, first_at timestamptz,
                 last_at timestamptz, lowest bigint, highest bigint, runs boolean)
  language sql
  stable
as $$
  with made as (
    select 'message' as kind, m.topic_id as place_id, m.position, m.parents, m.headers, m.run_id, m.recorded_at
      from kirby.message m where m.position > p_messages_after and m.position <= p_messages_to
     union all
    select 'mutation', m.state_id, m.position, m.parents, m.headers, m.run_id, m.recorded_at
      from kirby.state_mutation m where m.position > p_mutations_after and m.position <= p_mutations_to
  ), summed as materialized (
    select m.kind, m.place_id, m.position / 5000 as stretch, date_trunc('hour', m.recorded_at, 'UTC') as hour, m.run_id,
           left(m.headers #>> '{via,-1,0}', 200) as job, left(m.headers #>> '{via,-1,1}', 200) as release,
           m.headers #>> '{via,-1,2}' as source, count(*) as made, count(*) filter (where m.headers ? 'replay') as replays,
           min(m.recorded_at) as first_at, max(m.recorded_at) as last_at,
           min(case when m.parents[2] is null then m.parents[1]
                    else (select min(abs(u)) from unnest(m.parents) u) end) as lowest,
           max(case when m.parents[2] is null then m.parents[1]
                    else (select max(abs(u)) from unnest(m.parents) u) end) as highest,
           bool_or(0 > any (m.parents)) as runs
      from made m
     group by 1, 2, 3, 4, 5, 6, 7, 8
  )
  select p.environment_id, s.hour, case when not p.feed then t.id end, coalesce(s.job, w.job), s.release, s.kind, s.place_id, s.stretch, s.made,
         s.replays, s.first_at, s.last_at, s.lowest, s.highest, coalesce(s.runs, false)
    from summed s
    join (select 'message' as kind, t.id, t.environment_id,
                 exists (select from kirby.state a
                          where a.environment_id = t.environment_id and t.name = 'state.' || a.name) as feed
            from kirby.topic t
           union all
          select 'mutation', a.id, a.environment_id, false from kirby.state a) p on p.kind = s.kind and p.id = s.place_id
    left join kirby.topic t on t.environment_id = p.environment_id and t.name = s.source
    left join (select r.id, j.name as job
                 from kirby.run r
                 join kirby.deployment d on d.id = r.deployment_id
                 join kirby.job j on j.id = d.job_id) w on w.id = s.run_id;
$$;
