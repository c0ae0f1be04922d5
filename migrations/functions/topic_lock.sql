-- The first key of a topic's announcements: 'K' in the top byte, so that the advisory locks of other
-- applications in this database do not meet them (a collision would only delay readers).
create or replace function kirby.topic_lock(p_topic_id integer)
  returns integer
  language sql
  immutable
as $$
  select x'4B000000'::integer + p_topic_id;
$$;
