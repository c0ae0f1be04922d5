-- Stretches of the index by time that are not what their messages say. Where retention removed messages a stretch
-- may span more than those that are left.
create or replace function kirby.verify_time_index()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  with upto as materialized (
    select t.id, kirby.counted_to(t.id) as position from kirby.topic t
  )
  select format('up to position %s', coalesce(m.position, i.position)),
         jsonb_build_object('latest', m.latest, 'earliest', m.earliest),
         jsonb_build_object('latest', i.latest, 'earliest', i.earliest)
    from (select (m.position / 5000 + 1) * 5000 - 1 as position, max(m.recorded_at) as latest, min(m.recorded_at) as earliest
            from kirby.message m
            left join kirby.topic_count n on n.topic_id = m.topic_id and n.lane = m.lane
            join upto c on c.id = m.topic_id
           where m.position <= greatest(n.position, c.position)
           group by 1) m
    full join kirby.time_index i on i.position = m.position
   where i.position is null or m.latest > i.latest or m.earliest < i.earliest
      or (m.latest, m.earliest) is distinct from (i.latest, i.earliest)
         and i.position > coalesce((select max(r.gone_to) from kirby.topic_retention r), 0) + 4999;
$$;
