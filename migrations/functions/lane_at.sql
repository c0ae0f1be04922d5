-- The lane of a message of a topic: in its band if the topic has bands (no band: the middle one), among
-- as many lanes as the topic has at its position.
create or replace function kirby.lane_at(
  p_topic kirby.topic,
  p_position bigint,
  p_key text,
  p_band smallint
)
  returns smallint
  language sql
  stable
  parallel safe
as $$
  select case
           when p_topic.bands > 1 then
             (least(greatest(coalesce(p_band, p_topic.bands / 2), 0), p_topic.bands - 1)
                * (p_topic.lanes / p_topic.bands)
              + kirby.lane(p_key, p_position, (p_topic.lanes / p_topic.bands)::smallint))::smallint
           when p_position <= p_topic.lanes_from then
             kirby.lane(p_key, p_position, p_topic.old_lanes)
           else
             kirby.lane(p_key, p_position, p_topic.lanes)
         end;
$$;
