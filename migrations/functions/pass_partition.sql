-- Note that all messages of a partition are gone, which is about to be dropped; returns how many there were.
-- KB008: some of them are kept. They are counted before anything is locked: nobody adds to them any more.
create or replace function kirby.pass_partition(p_partition text, p_first bigint, p_last bigint)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_counts record;
  v_topic  record;
begin
  execute format(
    'select array_agg(m.topic_id) as topics, array_agg(m.lane) as lanes, array_agg(m.messages) as messages,
            array_agg(m.last) as lasts, coalesce(sum(m.messages), 0) as rows
       from (select topic_id, lane, count(*) as messages, max(position) as last
               from kirby.%I group by topic_id, lane) m', p_partition) into v_counts;

  -- In the order of ids, as everybody who locks several topics.
  perform from kirby.topic t where t.id = any (v_counts.topics) order by t.id for update;
  for v_topic in
    select c.topic_id, array_agg(c.lane) as lanes, array_agg(c.messages) as messages, max(c.last) as last
      from unnest(v_counts.topics, v_counts.lanes, v_counts.messages, v_counts.lasts)
           as c (topic_id, lane, messages, last)
     group by c.topic_id order by c.topic_id
  loop
    if v_topic.last > kirby.expired_to(v_topic.topic_id) or kirby.has_between(v_topic.topic_id, 0, p_first - 1) then
      perform kirby.fail('KB008', format('%s holds messages that are kept', p_partition));
    end if;
    perform kirby.pass_messages(
      v_topic.topic_id, p_last,
      (select max(i.latest) from kirby.time_index i where i.position >= p_first and i.position <= p_last),
      v_topic.lanes, v_topic.messages);
  end loop;
  return v_counts.rows;
end;
$$;
