-- Cursors whose count is not the rank of their position: how many messages their lane ever had up to it. One pass
-- over the messages, however many subscriptions there are. And lanes that have none.
create or replace function kirby.verify_cursors()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s/%s/%s lane %s', e.name, t.name, s.name, r.lane),
         jsonb_build_object('delivered', r.messages + coalesce(n.gone, 0), 'position', r.position),
         jsonb_build_object('delivered', r.delivered, 'position', r.position)
    from (select x.subscription_id, x.topic_id, x.lane, x.position, x.delivered,
                 sum(x.message) over (partition by x.topic_id, x.lane order by x.position, x.message desc
                                      rows unbounded preceding) as messages
            from (select null::integer as subscription_id, m.topic_id, m.lane, m.position, null::bigint as delivered,
                         1 as message
                    from kirby.message m
                   where m.topic_id in (select s.topic_id from kirby.subscription s)
                   union all
                  select c.subscription_id, s.topic_id, c.lane, c.position, c.delivered, 0
                    from kirby.cursor c join kirby.subscription s on s.id = c.subscription_id) x) r
    join kirby.subscription s on s.id = r.subscription_id
    join kirby.topic t on t.id = r.topic_id
    join kirby.environment e on e.id = t.environment_id
    left join kirby.topic_count n on n.topic_id = r.topic_id and n.lane = r.lane
   where r.delivered <> r.messages + coalesce(n.gone, 0)
   union all
  select format('%s/%s/%s lane %s', e.name, t.name, s.name, l.lane), jsonb_build_object('cursor', 'there'), null::jsonb
    from kirby.subscription s
    join kirby.topic t on t.id = s.topic_id
    join kirby.environment e on e.id = t.environment_id
   cross join lateral generate_series(0, t.lanes - 1) as l (lane)
   where not exists (select from kirby.cursor c where c.subscription_id = s.id and c.lane = l.lane);
$$;
