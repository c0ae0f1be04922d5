-- Everything that was made from the messages that a rewind delivers again (p_live: and from all after them), as lists:
-- messages (topics, positions), versions of keys of states, and the jobs that made them.
create or replace function kirby.rewind_lists(
  p_rewind kirby.rewind,
  p_live boolean default false,
  out topics integer[],
  out positions bigint[],
  out states integer[],
  out keys text[],
  out versions bigint[],
  out jobs text[]
)
  language sql
  volatile
as $$
  select array_agg(d.place_id) filter (where d.kind = 'message'),
         array_agg(d.position) filter (where d.kind = 'message'),
         array_agg(d.place_id) filter (where d.kind = 'mutation'),
         array_agg(d.key) filter (where d.kind = 'mutation'),
         array_agg(d.position) filter (where d.kind = 'mutation'),
         array_agg(distinct d.job)
    from kirby.descendants(
           p_rewind.environment_id, p_rewind.topic_id, p_rewind.after,
           case when p_live then 9223372036854775807 else coalesce(p_rewind.until, 9223372036854775807) end,
           p_rewind.keys, kirby.rewind_jobs(p_rewind)) d;
$$;
