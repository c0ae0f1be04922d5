-- Remove the oldest expired messages of a topic, at most p_limit of them and none beyond p_upto; returns how
-- many. Only what kirby.expired_to allows, whatever is asked for. In the order of their positions, so
-- that everything up to the last one is gone, and everything behind it is there.
--
-- The lock on the topic keeps a subscription from being opened meanwhile: it begins before or behind.
create or replace function kirby.remove_messages(
  p_topic_id integer,
  p_upto bigint default 9223372036854775807,
  p_limit integer default 5000
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms'
as $$
declare
  v_gone  bigint;
  v_upto  bigint;
  v_piece record;
  v_lanes record;
begin
  perform from kirby.topic t where t.id = p_topic_id for update;
  select r.gone_to into v_gone from kirby.topic_retention r where r.topic_id = p_topic_id for update;
  v_upto := least(p_upto, kirby.expired_to(p_topic_id));

  select count(*)::integer as messages, max(p.position) as last, max(p.recorded_at) as at into v_piece
    from (select m.position, m.recorded_at
            from kirby.topic t
           cross join lateral generate_series(0, t.lanes - 1) as l (lane)
           cross join lateral (
                 select m.position, m.recorded_at from kirby.message m
                  where m.topic_id = p_topic_id and m.lane = l.lane
                    and m.position > v_gone and m.position <= v_upto
                  order by m.position limit p_limit) m
           where t.id = p_topic_id
           order by m.position limit p_limit) p;
  if v_piece.messages = 0 then
    return 0;
  end if;

  select array_agg(c.lane) as lanes, array_agg(c.messages) as messages into v_lanes
    from (select l.lane::smallint as lane, count(*) as messages
            from kirby.topic t
           cross join lateral generate_series(0, t.lanes - 1) as l (lane)
            join kirby.message m on m.topic_id = p_topic_id and m.lane = l.lane
                                and m.position > v_gone and m.position <= v_piece.last
           where t.id = p_topic_id
           group by l.lane) c;
  perform kirby.pass_messages(p_topic_id, v_piece.last, v_piece.at, v_lanes.lanes, v_lanes.messages);
  perform set_config('kirby.removing', 'message', true);
  delete from kirby.message m
   where m.topic_id = p_topic_id and m.lane = any (v_lanes.lanes)
     and m.position > v_gone and m.position <= v_piece.last;
  perform set_config('kirby.removing', '', true);
  return v_piece.messages;
end;
$$;
