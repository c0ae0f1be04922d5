-- Every lane in which messages of a key may lie: one for each band, and for each number of lanes that
-- the topic ever had.
create or replace function kirby.lanes_of(p_topic_id integer, p_key text)
  returns smallint[]
  language sql
  stable
as $$
  select array_agg(distinct (b.band * w.width + kirby.lane(p_key, 0, w.width))::smallint)
    from kirby.topic t
   cross join lateral generate_series(0, t.bands - 1) as b (band)
   cross join lateral (
         select (t.lanes / t.bands)::smallint
          union select unnest(array[c.before, c.lanes]) from kirby.lane_change c where c.topic_id = t.id
         ) as w (width)
   where t.id = p_topic_id;
$$;
