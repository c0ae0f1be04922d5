-- Read a topic in order from after a position, up to its horizon (a snapshot that stays true).
--   select * from kirby.read('orders', after => 0, max => 100);
-- since (inclusive) and until (exclusive) bound the time of recording; the index by time finds where to
-- begin and to end, however long the topic is. KB002: no such topic. KB003.
create or replace function kirby.read(
  topic text,
  after bigint default 0,
  max integer default 100,
  since timestamptz default null,
  until timestamptz default null
)
  returns table ("position" bigint, key text, payload jsonb, headers jsonb,
                 run_id bigint, parents bigint[], recorded_at timestamptz)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_sort = off  -- each lane is read in order by its index, and no further than asked
  set jit = off
as $$
declare
  v_who     record;
  v_topic   kirby.topic;
  v_horizon bigint;
  v_after   bigint := after;
  v_last    bigint;  -- nothing that is counted and lies beyond it was recorded before until
  v_counted bigint := 9223372036854775807;
begin
  select * into v_who from kirby.bearer();
  select * into v_topic from kirby.topic t
   where t.environment_id = v_who.environment_id and t.name = read.topic;
  if not found then
    perform kirby.fail('KB002', format('there is no topic %s in this environment', topic));
  end if;
  if since is not null then
    v_after := greatest(after, kirby.first_since(v_topic.id, since) - 1);
  end if;
  v_horizon := kirby.horizon(v_topic.id);
  v_last := v_horizon;
  if until is not null then
    select kirby.counted_to(v_topic.id), least(v_horizon, coalesce(
             (select i.position from kirby.time_index i where i.earliest < read.until
               order by i.position desc limit 1), 0))
      into v_counted, v_last;
  end if;

  -- Each lane is one range of the primary key, and one of what is not counted yet; merging them costs
  -- lanes × max at the most.
  return query
    select m.position, m.key, m.payload, m.headers, m.run_id, m.parents, m.recorded_at
      from (values (v_after, v_last), (greatest(v_after, v_last, v_counted), v_horizon)) as r (first, last)
     cross join generate_series(0, v_topic.lanes - 1) as l (lane)
     cross join lateral (
           select * from kirby.message m
            where r.first < r.last and m.topic_id = v_topic.id and m.lane = l.lane
              and m.position > r.first and m.position <= r.last
              and coalesce(m.recorded_at >= since, true)  -- not for the planner: the positions decide
              and coalesce(m.recorded_at < until, true)
            order by m.position
            limit max) m
     order by m.position
     limit max;
end;
$$;
