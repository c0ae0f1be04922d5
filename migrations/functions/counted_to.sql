-- Up to where a topic (NULL: every topic) is counted and in the index by time.
create or replace function kirby.counted_to(p_topic_id integer)
  returns bigint
  language sql
  stable  -- with the snapshot of the statement that asks: what it counts and the index belong together
as $$
  select least(c.position, (select min(l.upto) from unnest(c.late, c.late_to) as l (topic_id, upto)
                             where p_topic_id is null or l.topic_id = p_topic_id))
    from kirby.counted c;
$$;
