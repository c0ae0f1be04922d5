-- Mutations whose version is not the next one of their key, unless compaction removed some before them; and states of which it
-- did not remove as many as it says.
create or replace function kirby.verify_state_versions()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  with version as materialized (
    select m.state_id, m.key, m.position, m.version, c.exact_from, c.state_id is not null as compacted,
           case when c.state_id is null then row_number() over key
                else coalesce(lag(m.version) over key, 0) + 1 end as next
      from kirby.state_mutation m
      left join kirby.compaction c on c.state_id = m.state_id
    window key as (partition by m.state_id, m.key order by m.position)
  )
  select format('%s/%s/%s at %s', v.name, s.name, m.key, m.position),
         jsonb_build_object('version', m.next), jsonb_build_object('version', m.version)
    from version m
    left join kirby.state s on s.id = m.state_id
    left join kirby.environment v on v.id = s.environment_id
   where m.version <> m.next and (m.version < m.next or not m.compacted or m.position > m.exact_from)
   union all
  select format('%s/%s', v.name, s.name), jsonb_build_object('removed', n.missing, 'of days', n.missing),
         jsonb_build_object('removed', c.removed, 'of days', n.days)
    from kirby.compaction c
    join kirby.state s on s.id = c.state_id
    join kirby.environment v on v.id = s.environment_id
   cross join lateral (
         select coalesce((select sum(m.version - m.next) from version m where m.state_id = c.state_id), 0) as missing,
                coalesce((select sum(d.versions) from kirby.compacted_day d where d.state_id = c.state_id), 0) as days) n
   where (n.missing, n.missing) is distinct from (c.removed, n.days);
$$;
