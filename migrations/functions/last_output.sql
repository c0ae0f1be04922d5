-- When the newest message of a topic was recorded, or null.
create or replace function kirby.last_output(p_environment_id smallint, p_topic text)
  returns timestamptz
  language sql
  stable
as $$
  select max((select m.recorded_at from kirby.message m
               where m.topic_id = t.id and m.lane = l.n order by m.position desc limit 1))
    from kirby.topic t
   cross join lateral generate_series(0, t.lanes - 1) as l (n)
   where t.environment_id = p_environment_id and t.name = p_topic;
$$;
