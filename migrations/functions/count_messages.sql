-- Count the messages that came since the last time, at most p_most positions of them; returns whether
-- more are left. Called by the leader every second: it looks at the new part of the log only, by its
-- BRIN index, however long the log is.
--
-- Counted is what lies below the horizon of its topic, found in the three steps of kirby.horizon: so a
-- count is final. A topic that somebody is just writing to is counted up to its own horizon, by its
-- primary key; it is late until it has caught up, and holds up no other. The index by time is written along.
create or replace function kirby.count_messages(p_most integer default 1000000)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
as $$
declare
  v_piece constant integer := 100000;  -- of a lane of a late topic, in one go
  v_done  kirby.counted;
  v_high  bigint;
  v_to    bigint;
  v_late  integer[];
  v_low   bigint[];
  v_cut   boolean;
begin
  perform kirby.check_isolation();
  select * into v_done from kirby.counted for no key update;  -- one counter at a time

  -- step 1
  select last_value into v_high from kirby.position;
  v_to := least(v_high, v_done.position + p_most);

  -- step 2
  with a as materialized (select * from kirby.announced(v_high) where low < v_to)
  select array_agg(l.topic_id), array_agg(least(a.low, v_to)) into v_late, v_low
    from (select unnest(v_done.late) as topic_id union select a.topic_id from a) l
    left join a on a.topic_id = l.topic_id;
  v_late := coalesce(v_late, '{}');

  -- step 3
  with news as materialized (
    select m.topic_id, m.lane, m.position / 5000 as stretch, count(*) as messages,
           max(m.position) as position, max(m.recorded_at) as latest, min(m.recorded_at) as earliest
      from kirby.message m
     where m.position > v_done.position and m.position <= v_to and m.topic_id <> all (v_late)
     group by grouping sets ((m.topic_id, m.lane), (m.position / 5000))
  ), late as materialized (
    select t.id as topic_id, l.lane, m.position / 5000 as stretch, count(*) as messages,
           max(m.position) as position, max(m.recorded_at) as latest, min(m.recorded_at) as earliest
      from unnest(v_late, v_low) as b (topic_id, low)
      join kirby.topic t on t.id = b.topic_id
     cross join lateral generate_series(0, t.lanes - 1) as l (lane)
      left join kirby.topic_count c on c.topic_id = t.id and c.lane = l.lane
     cross join lateral (
           select m.position, m.recorded_at from kirby.message m
            where m.topic_id = t.id and m.lane = l.lane
              and m.position > greatest(c.position, 0) and m.position <= b.low
            order by m.position limit v_piece) m
     group by 1, 2, 3
  ), counts as (
    insert into kirby.topic_count as c (topic_id, lane, position, messages)
    select n.topic_id, n.lane, max(n.position), sum(n.messages)
      from (select topic_id, lane, position, messages from news where stretch is null
             union all
            select topic_id, lane, position, messages from late) n
     group by n.topic_id, n.lane
     order by n.topic_id, n.lane
        on conflict (topic_id, lane) do update
       set position = excluded.position, messages = c.messages + excluded.messages
  ), lanes as (
    select topic_id, lane, max(position) as position from late group by topic_id, lane
    having sum(messages) >= v_piece
  ), pending as (
    -- Late is a topic whose horizon, or whose piece, ends before the others'.
    select b.topic_id, least(b.low, min(l.position)) as upto
      from unnest(v_late, v_low) as b (topic_id, low)
      left join lanes l on l.topic_id = b.topic_id
     group by b.topic_id, b.low
    having least(b.low, min(l.position)) < v_to
  ), mark as (
    update kirby.counted
       set position = v_to, at = clock_timestamp(),
           late = coalesce((select array_agg(topic_id order by topic_id) from pending), '{}'),
           late_to = coalesce((select array_agg(upto order by topic_id) from pending), '{}')
     where position <> v_to or late <> '{}' or exists (select from pending)
        or at < clock_timestamp() - interval '10 seconds'
  ), times as (
    insert into kirby.time_index as i (position, latest, earliest)
    select (n.stretch + 1) * 5000 - 1, max(n.latest), min(n.earliest)
      from (select stretch, latest, earliest from news where stretch is not null
             union all
            select stretch, latest, earliest from late) n
     group by n.stretch
     order by n.stretch
        on conflict (position) do update
       set latest = greatest(i.latest, excluded.latest), earliest = least(i.earliest, excluded.earliest)
     where i.latest < excluded.latest or i.earliest > excluded.earliest
  )
  select exists (select from lanes) into v_cut;
  return v_to < v_high or v_cut;
end;
$$;
