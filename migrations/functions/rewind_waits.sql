-- Which subscriptions downstream of a rewind are not done with what was made from the messages that come again, and
-- the newest such message in each of their lanes. Of the jobs named only, and of those that ever made something of that
-- topic, or say that they do; parked messages are not waited for.
create or replace function kirby.rewind_waits(
  p_rewind kirby.rewind,
  p_topics integer[],
  p_positions bigint[],
  p_jobs text[]
)
  returns table (subscription_id integer, lane smallint, "position" bigint)
  language sql
  volatile
as $$
  with maker as materialized (
    select s.id, s.name, s.topic_id from kirby.subscription s
     where s.topic_id = any (p_topics)
       and (s.name = any (p_jobs)
            or exists (select from kirby.flow f
                        where f.environment_id = p_rewind.environment_id and f.source_id = s.topic_id and f.job = s.name)
            or exists (select from kirby.declaration o
                        where o.subscription_id = s.id and (o.document ->> 'to' is not null
                              or coalesce(o.document -> 'states', '[]') not in ('[]', 'null'))))
  )
  select s.id, m.lane, max(m.position)
    from unnest(p_topics, p_positions) as d (topic_id, position)
    join kirby.message m on m.topic_id = d.topic_id and m.position = d.position
    join maker s on s.topic_id = d.topic_id
   where not (s.topic_id = p_rewind.topic_id and s.name = any (p_rewind.subscriptions))
     and kirby.is_unsettled(s.id, m.lane, m.position)
   group by s.id, m.lane;
$$;
