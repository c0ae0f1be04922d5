-- Which subscriptions downstream of a rewind are not done with what was made from the messages that come again, and
-- the first such message of each. Of the jobs named only; parked messages are not waited for.
create or replace function kirby.rewind_waits(
  p_rewind kirby.rewind,
  p_topics integer[],
  p_positions bigint[],
  p_jobs text[]
)
  returns table (subscription text, topic text, "position" bigint)
  language sql
  volatile
as $$
  select distinct on (s.id) s.name, t.name, m.position
    from unnest(p_topics, p_positions) as d (topic_id, position)
    join kirby.message m on m.topic_id = d.topic_id and m.position = d.position
    join kirby.topic t on t.id = d.topic_id
    join kirby.subscription s on s.topic_id = d.topic_id and s.name = any (p_jobs)
    join kirby.cursor c on c.subscription_id = s.id and c.lane = m.lane
    left join kirby.due o on o.subscription_id = s.id and o.position = m.position
   where not (s.topic_id = p_rewind.topic_id and s.name = any (p_rewind.subscriptions))
     and case when o.position is not null then o.parked_at is null and o.reason <> 'done'
              when m.position > c.position then true
              else exists (select from kirby.claim h
                            where h.subscription_id = s.id and h.id >= kirby.first_claim(s.id) and h.lane = m.lane
                              and h.kind = 'range' and m.position between h.first and h.last) end
   order by s.id, m.position;
$$;
