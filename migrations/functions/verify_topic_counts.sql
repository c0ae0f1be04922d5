-- Lanes whose count is not that of their messages: those that are there, and those that retention removed. What
-- it says that it removed is not there.
create or replace function kirby.verify_topic_counts()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  with upto as materialized (
    select t.id, kirby.counted_to(t.id) as position from kirby.topic t
  )
  select format('%s/%s lane %s', e.name, t.name, k.lane),
         jsonb_build_object('messages', coalesce(f.gone, 0) + coalesce(m.messages, 0),
                            'position', coalesce(m.last, f.position)),
         jsonb_build_object('messages', f.messages, 'position', f.position)
    from (select m.topic_id, m.lane, count(*) as messages, max(m.position) as last
            from kirby.message m
            left join kirby.topic_count n on n.topic_id = m.topic_id and n.lane = m.lane
            join upto c on c.id = m.topic_id
           where m.position <= greatest(n.position, c.position)
           group by m.topic_id, m.lane) m
    full join kirby.topic_count f on f.topic_id = m.topic_id and f.lane = m.lane
   cross join lateral (select coalesce(m.topic_id, f.topic_id) as topic_id, coalesce(m.lane, f.lane) as lane) k
    left join kirby.topic t on t.id = k.topic_id
    left join kirby.environment e on e.id = t.environment_id
   where coalesce(f.messages, 0) <> coalesce(f.gone, 0) + coalesce(m.messages, 0)
      or m.last is not null and f.position is distinct from m.last
   union all
  select format('%s/%s', e.name, t.name), jsonb_build_object('removed up to', r.gone_to),
         jsonb_build_object('messages there', count(*), 'first', min(m.position))
    from kirby.topic_retention r
    join kirby.message m on m.topic_id = r.topic_id and m.position <= r.gone_to
    join kirby.topic t on t.id = r.topic_id
    join kirby.environment e on e.id = t.environment_id
   group by e.name, t.name, r.gone_to;
$$;
