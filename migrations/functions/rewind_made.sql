-- Everything that was made from the messages that a rewind delivers again, by the subscriptions that it is for.
create or replace function kirby.rewind_made(p_rewind kirby.rewind)
  returns table (kind text, place_id integer, "position" bigint, key text, depth integer, job text)
  language sql
  volatile
as $$
  select d.kind, d.place_id, d.position, d.key, d.depth, d.job
    from kirby.descendants(
           p_rewind.environment_id, p_rewind.topic_id, p_rewind.after,
           coalesce(p_rewind.until, 9223372036854775807), p_rewind.keys,
           case when jsonb_typeof(p_rewind.plan -> 'only') = 'array' then p_rewind.subscriptions end) d;
$$;
