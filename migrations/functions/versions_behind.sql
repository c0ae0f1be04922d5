-- The versions that mutations of keys were made from: the one before, and so on. One that was restored was made
-- from the version that was restored, one that deletes its key from none; before one whose forerunner compaction removed
-- nothing is known (kirby.is_cut). Each once, and none of the given ones.
--
-- The versions of a key lie in stretches that begin with such a one; whole stretches are reached, not one version
-- after the other.
create or replace function kirby.versions_behind(p_states integer[], p_keys text[], p_positions bigint[])
  returns table (state_id integer, key text, "position" bigint, version bigint, parents bigint[], headers jsonb,
                 run_id bigint)
  language sql
  stable
as $$
  with recursive given as materialized (
    select g.state_id, g.key, max(g.position) as newest, array_agg(g.position) as positions
      from unnest(p_states, p_keys, p_positions) as g (state_id, key, position)
     group by g.state_id, g.key
  ), version as materialized (
    select m.state_id, m.key, m.position, m.version, m.parents, m.headers, m.run_id,
           case when m.headers ? 'restored' then (m.headers #>> '{restored,version}')::bigint end as restored,
           m.position = any (g.positions) as given,
           count(*) filter (where m.op = 'delete' or m.headers ? 'restored' or m.version > m.last + 1)
             over (partition by m.state_id, m.key order by m.position) as stretch
      from given g
     cross join lateral (
           select m.*, lag(m.version, 1, 0::bigint) over (order by m.position) as last from kirby.state_mutation m
            where m.state_id = g.state_id and m.key = g.key and m.position <= g.newest
            offset 0) m
  ), reached as (
    select v.state_id, v.key, v.stretch, max(v.position) as upto
      from version v where v.given group by v.state_id, v.key, v.stretch
     union
    select v.state_id, v.key, v.stretch, v.position
      from reached r
      join version h on h.state_id = r.state_id and h.key = r.key and h.stretch = r.stretch
                    and h.restored is not null
      join version v on v.state_id = h.state_id and v.key = h.key and v.version = h.restored
  )
  select v.state_id, v.key, v.position, v.version, v.parents, v.headers, v.run_id
    from version v
    join (select r.state_id, r.key, r.stretch, max(r.upto) as upto
            from reached r group by r.state_id, r.key, r.stretch) r
      on r.state_id = v.state_id and r.key = v.key and r.stretch = v.stretch and v.position <= r.upto
   where not v.given;
$$;
