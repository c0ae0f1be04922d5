-- What is undone if these versions of keys of states are: of each key every version from the first of them on that still
-- stands. One that a restore has set aside (a rewind, an abort, a person: headers.restored) is as if it had never been,
-- and so is the restore itself.
create or replace function kirby.standing_since(p_states integer[], p_keys text[], p_positions bigint[])
  returns table (state_id integer, key text, "position" bigint, parents bigint[], job text)
  language sql
  volatile
as $$
  with recursive given as materialized (
    select g.state_id, g.key collate "C" as key, min(g.position) as low
      from unnest(p_states, p_keys, p_positions) as g (state_id, key, position) group by g.state_id, g.key collate "C"
  ), version as materialized (
    select m.state_id, m.key, m.version, m.position, m.parents, m.headers, m.run_id,
           (m.headers #>> '{restored,version}')::bigint as target
      from given g join kirby.state_mutation m on m.state_id = g.state_id and m.key = g.key and m.position >= g.low
  ), restored as materialized (
    select v.state_id, v.key, v.version, v.target, row_number() over w as number
      from version v where v.target is not null window w as (partition by v.state_id, v.key order by v.version desc)
  ), valid as (
    select r.state_id, r.key, r.version, r.target from restored r where r.number = 1
     union all
    select n.state_id, n.key, n.version, n.target
      from valid c
     cross join lateral (
           select * from restored r
            where r.state_id = c.state_id and r.key = c.key and r.version <= c.target
            order by r.version desc limit 1) n
  ), standing as materialized (
    select v.* from version v
      left join valid c on c.state_id = v.state_id and c.key = v.key and v.version > c.target and v.version <= c.version
     where c.version is null
  ), first as (
    select s.state_id, s.key, min(s.position) as position
      from standing s
      join unnest(p_states, p_keys, p_positions) as g (state_id, key, position)
        on g.state_id = s.state_id and g.key = s.key and g.position = s.position
     group by s.state_id, s.key
  )
  select s.state_id, s.key, s.position, s.parents, coalesce(s.headers #>> '{via,-1,0}', kirby.job_of(s.run_id))
    from first f join standing s on s.state_id = f.state_id and s.key = f.key and s.position >= f.position;
$$;
