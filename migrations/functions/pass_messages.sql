-- Note that the messages of a topic up to a position are gone: how many of each lane, and when the last of
-- them was recorded. If unread ones may go, what was to be delivered of them is forgotten, and subscriptions
-- go on behind them. The caller has locked the topic.
create or replace function kirby.pass_messages(
  p_topic_id integer,
  p_upto bigint,
  p_at timestamptz,
  p_lanes smallint[],
  p_messages bigint[]
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_freed record;
begin
  update kirby.topic_retention r
     set gone_to = p_upto, gone_at = greatest(r.gone_at, p_at)
   where r.topic_id = p_topic_id;
  update kirby.topic_count c
     set gone = c.gone + g.messages
    from unnest(p_lanes, p_messages) as g (lane, messages)
   where c.topic_id = p_topic_id and c.lane = g.lane;

  -- Nothing of this is there unless unread messages may go.
  for v_freed in
    with forgotten as (
      delete from kirby.due d using kirby.subscription s
       where s.id = d.subscription_id and s.topic_id = p_topic_id and d.position <= p_upto
      returning s.id, d.key
    )
    select distinct f.id, f.key from forgotten f where f.key is not null order by 1, 2
  loop
    perform kirby.free_key(s, v_freed.key) from kirby.subscription s where s.id = v_freed.id;
  end loop;
  update kirby.cursor c
     set position = p_upto, delivered = coalesce(n.gone, 0)
    from kirby.subscription s, kirby.topic_count n
   where s.id = c.subscription_id and s.topic_id = p_topic_id and c.position < p_upto
     and n.topic_id = p_topic_id and n.lane = c.lane and n.gone > c.delivered;
end;
$$;
