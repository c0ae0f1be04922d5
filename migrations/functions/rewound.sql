-- The subscriptions of a topic that a rewind is for, in the order in which they are locked.
create or replace function kirby.rewound(p_topic_id integer, p_names text[])
  returns setof kirby.subscription
  language sql
  volatile
as $$
  select s.* from kirby.subscription s
   where s.topic_id = p_topic_id and s.shadow_id is null and (p_names is null or s.name = any (p_names))
   order by s.id;
$$;
