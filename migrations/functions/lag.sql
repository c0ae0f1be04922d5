-- How many messages a subscription has not settled, and how many seconds ago the oldest of them was
-- recorded. Parked ones, and those that are delayed until later, are not among them. Not exact: it is at
-- least so many (more than 10,000 are not counted yet, or are being worked on or tried again).
--
-- Before a cursor lie as many messages as were published less its rank (delivered); what came since
-- the last count is counted here. So the time it takes does not depend on how far behind it is. Cursors and
-- claims are found from their newest end, as kirby.take_lane does. What a rewind passes over is not counted.
create or replace function kirby.lag(
  p_subscription_id integer,
  out messages bigint,
  out seconds double precision,
  out exact boolean
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan  -- to plan it for all partitions costs more than to run it
as $$
declare
  v_most   constant integer := 10000;
  v_topic  integer;
  v_lanes  integer;
  v_first  bigint := kirby.first_claim(p_subscription_id);
  v_now    timestamptz := kirby.now();
  v_oldest timestamptz;
begin
  select t.id, t.lanes into v_topic, v_lanes
    from kirby.subscription s join kirby.topic t on t.id = s.topic_id where s.id = p_subscription_id;

  with lane as materialized (
    select c.lane, c.position, greatest(c.position, n.position) as start,
           case when n.position > c.position then n.messages - c.delivered else 0 end as counted,
           w.delivered - w.passed - w.messages as passed_over
      from generate_series(0, v_lanes - 1) as l (lane)
     cross join lateral (
           select * from kirby.cursor o
            where o.subscription_id = p_subscription_id and o.lane = l.lane
            order by o.position desc limit 1) c
      left join kirby.topic_count n on n.topic_id = v_topic and n.lane = c.lane
      left join kirby.rewind_lane w on w.subscription_id = p_subscription_id and w.lane = c.lane
                                   and w.rewind_id = c.rewind_id
  ), tail as (
    select count(*) as messages
      from (select from lane l
             cross join lateral (
                   select from kirby.message m
                    where m.topic_id = v_topic and m.lane = l.lane and m.position > l.start
                    limit v_most + 1) m
             limit v_most + 1) t
  ), held as (
    select count(*) as messages
      from (select from kirby.claim c
             cross join lateral (
                   select from kirby.message m
                    where m.topic_id = v_topic and m.lane = c.lane
                      and m.position between c.first and c.last
                      and not exists (select from kirby.due d where d.subscription_id = c.subscription_id
                                                                and d.position = m.position)
                    limit v_most + 1) m
             where c.subscription_id = p_subscription_id and c.id >= v_first and c.kind = 'range'
             limit v_most + 1) h
  ), due as materialized (
    select d.reason, d.due_at from kirby.due d
     where d.subscription_id = p_subscription_id and d.parked_at is null and d.reason <> 'done'
     limit v_most + 1
  )
  select greatest(greatest((select sum(l.counted) from lane l), 0) + t.messages
                    - coalesce((select sum(l.passed_over) from lane l), 0), 0) + h.messages + d.messages,
         t.messages <= v_most and h.messages <= v_most and d.looked_at <= v_most
    into messages, exact
    from tail t, held h,
         (select count(*) filter (where due.reason <> 'delayed' or due.due_at <= v_now) as messages,
                 count(*) as looked_at
            from due) d;

  select min(o.at) into v_oldest
    from (select m.recorded_at as at
            from generate_series(0, v_lanes - 1) as l (lane)
           cross join lateral (
                 select o.position from kirby.cursor o
                  where o.subscription_id = p_subscription_id and o.lane = l.lane
                  order by o.position desc limit 1) c
           cross join lateral (
                 select m.recorded_at from kirby.message m
                  where m.topic_id = v_topic and m.lane = l.lane and m.position > c.position
                  order by m.position limit 1) m
           union all
          select m.recorded_at
            from kirby.claim c
           cross join lateral (
                 select m.recorded_at from kirby.message m
                  where m.topic_id = v_topic and m.lane = c.lane and m.position between c.first and c.last
                    and not exists (select from kirby.due d where d.subscription_id = c.subscription_id
                                                              and d.position = m.position)
                  order by m.position limit 1) m
           where c.subscription_id = p_subscription_id and c.id >= v_first and c.kind = 'range'
           union all
          select coalesce(m.deliver_at, m.recorded_at)
            from (select d.lane, d.position, d.reason, d.due_at, d.parked_at from kirby.due d
                   where d.subscription_id = p_subscription_id
                   order by d.position limit v_most) d
            join kirby.message m on m.topic_id = v_topic and m.lane = d.lane and m.position = d.position
           where d.parked_at is null and d.reason <> 'done' and (d.reason <> 'delayed' or d.due_at <= v_now)
         ) o;
  seconds := coalesce(greatest(extract(epoch from v_now - v_oldest), 0), 0);
end;
$$;
