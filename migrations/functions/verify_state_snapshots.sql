-- Entries of snapshots that are not what the mutations up to there say; counts of mutations and moments likewise.
create or replace function kirby.verify_state_snapshots()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s/%s/%s at %s', v.name, s.name, k.key, k.snapshot), to_jsonb(t), to_jsonb(f)
    from (select m.state_id, p.position as snapshot, m.key, m.version, m.value, m.position, m.run_id, m.recorded_at
            from (select u.*, lead(u.position, 1, 9223372036854775807)
                              over (partition by u.state_id, u.key order by u.position) as next
                    from kirby.state_mutation u) m
            join kirby.state_snapshot p on p.state_id = m.state_id and p.position >= m.position and p.position < m.next
           where m.op = 'set') t
    full join kirby.state_snapshot_entry f on f.state_id = t.state_id and f.snapshot = t.snapshot and f.key = t.key
   cross join lateral (select coalesce(t.state_id, f.state_id) as state_id, coalesce(t.snapshot, f.snapshot) as snapshot,
                              coalesce(t.key, f.key) as key) k
    left join kirby.state s on s.id = k.state_id
    left join kirby.environment v on v.id = s.environment_id
   where (t.version, t.value, t.position, t.run_id, t.recorded_at)
         is distinct from (f.version, f.value, f.position, f.run_id, f.recorded_at)
   union all
  select format('%s/%s', v.name, s.name), jsonb_build_object('mutations', t.mutations, 'latest', t.latest),
         jsonb_build_object('mutations', c.mutations, 'latest', c.latest)
    from (select m.state_id, count(*) + coalesce(max(o.removed), 0) as mutations, max(m.recorded_at) as latest,
                 coalesce(max(o.removed), 0) > 0 as compacted
            from kirby.mutations_counted d
            join kirby.state_mutation m on m.position <= d.position
            left join kirby.compaction o on o.state_id = m.state_id
           group by m.state_id) t
    full join kirby.state_count c on c.state_id = t.state_id
    left join kirby.state s on s.id = coalesce(t.state_id, c.state_id)
    left join kirby.environment v on v.id = s.environment_id
   where (t.mutations, t.latest) is distinct from (c.mutations, c.latest)
     and not coalesce(t.compacted and t.mutations = c.mutations and t.latest < c.latest, false)  -- the clock was set back
   union all
  select format('%s/%s from %s on', v.name, s.name, o.position), jsonb_build_object('not later than', o.recorded_at),
         jsonb_build_object('at', o.at)
    from (select u.state_id, u.position, u.at,
                 min(u.recorded_at) over (partition by u.state_id order by u.position desc, u.at nulls last
                                          rows between unbounded preceding and 1 preceding) as recorded_at
            from (select m.state_id, m.position, null as at, m.recorded_at from kirby.state_mutation m
                   union all
                  select n.state_id, n.position, n.at, null from kirby.moment n) u) o
    join kirby.state s on s.id = o.state_id
    join kirby.environment v on v.id = s.environment_id
   where o.recorded_at < o.at;
$$;
