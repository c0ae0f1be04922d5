-- Of a plan that sets states back (kirby.exact_note): that compaction removed versions of a state which it would need, and
-- the earliest point that they are all there for.
create or replace function kirby.lost_note(p_topic kirby.topic, p_state text, p_exact_from bigint, p_upto timestamptz)
  returns jsonb
  language sql
  stable
as $$
  select jsonb_build_object(
    'versions', 0, 'after', null, 'at', null, 'messages', 0, 'why', 'compaction',
    'text', format('not exact from here: state %s was compacted up to %s; what it needs is there from position %s on%s',
                   p_state, kirby.day_of(p_upto), p_exact_from + 1, coalesce(' (' || kirby.utc(m.at) || ')', '')))
    from (select min(f.recorded_at) as at
            from generate_series(0, p_topic.lanes - 1) as l (lane)
           cross join lateral (
                 select m.recorded_at from kirby.message m
                  where m.topic_id = p_topic.id and m.lane = l.lane and m.position > p_exact_from
                  order by m.position limit 1) f) m;
$$;
