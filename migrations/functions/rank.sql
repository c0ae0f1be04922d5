-- How many messages a lane ever had at or below a position: what kirby.cursor.delivered is for a cursor
-- that is moved there. Counts the shorter side of it. NULL for a position that retention has passed: how many of those
-- there were up to it is not known any more.
create or replace function kirby.rank(p_topic_id integer, p_lane smallint, p_position bigint)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_count kirby.topic_count;
  v_gone  bigint := 0;
begin
  select * into v_count from kirby.topic_count where topic_id = p_topic_id and lane = p_lane;
  select r.gone_to into v_gone from kirby.topic_retention r where r.topic_id = p_topic_id;
  if p_position < v_gone then
    return null;
  elsif p_position >= v_count.position / 2 + coalesce(v_gone, 0) / 2 and p_position <= v_count.position then
    return v_count.messages - (select count(*) from kirby.message m
                                where m.topic_id = p_topic_id and m.lane = p_lane
                                  and m.position > p_position and m.position <= v_count.position);
  elsif p_position > v_count.position then
    return v_count.messages + (select count(*) from kirby.message m
                                where m.topic_id = p_topic_id and m.lane = p_lane
                                  and m.position > v_count.position and m.position <= p_position);
  end if;
  return coalesce(v_count.gone, 0) + (select count(*) from kirby.message m
                                       where m.topic_id = p_topic_id and m.lane = p_lane
                                         and m.position <= p_position);
end;
$$;
