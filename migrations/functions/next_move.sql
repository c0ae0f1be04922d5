-- The replicas whose move would help most, the most urgent first: from a supervisor that drains; from an older
-- version, where a deploy is rolled out, as long as the ones that have the new version stay up; from a host
-- that has two more of its deployment than another one that could take it; from a supervisor that has two more
-- than its share of all, to one that has fewer than its share (as long as that host has fewer of the deployment). A
-- deployment is left alone while one of its replicas is on its way (kirby.is_moving).
create or replace function kirby.next_move()
  returns table (run_id bigint, reason text)
  language sql
  volatile
as $$
  with replica as (
    select r.id, r.deployment_id, r.labels, r.supervisor_id, s.host, s.draining_at, s.slots,
           r.status = 'running' and not bool_or(kirby.is_moving(r)) over (partition by r.deployment_id) as quiet,
           count(*) over (partition by r.deployment_id, s.host) as here,
           count(*) over (partition by r.supervisor_id) as own,
           d.rolling and not r.canary and r.version <> d.version
             and bool_and(r.canary or r.version <> d.version
                          or coalesce(r.started_at < kirby.now() - interval '5 seconds', false))
                 over (partition by r.deployment_id) as is_old,
           d.version as deployed
      from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      left join kirby.supervisor s on s.id = r.supervisor_id
     where r.replica is not null and r.status in ('queued', 'starting', 'running')
  ), house as (
    select l.*, count(*) over () as supervisors,
           sum(l.replicas) over () * l.slots::numeric / sum(l.slots) over () as share
      from kirby.loads() l
  ), target as (
    select m.id as run_id, h.host, h.replicas, h.share,
           (select count(*) from replica o where o.deployment_id = m.deployment_id and o.host = h.host) as there
      from replica m
     cross join lateral (
           select h.* from house h
            join kirby.supervisor s on s.id = h.id
           where h.runs < h.slots and m.labels <@ s.labels and h.id <> m.supervisor_id) h
     where m.quiet
  )
  select m.id, case when m.draining_at is not null then 'its supervisor is being drained'
                    when m.is_old then format('replaced by version %s', m.deployed)
                    else 'moved to a host with fewer replicas' end
    from replica m
    left join lateral (
         select min(t.there) filter (where t.host <> m.host) as fewest,
                bool_or(t.replicas < floor(t.share) and (t.there < m.here or t.host = m.host)) as is_light
           from target t where t.run_id = m.id) t on true
    left join house h on h.id = m.supervisor_id
   where m.quiet
     and (m.draining_at is not null
          or m.is_old
          or m.here - t.fewest >= 2
          or (h.replicas > ceil(h.share) and t.is_light))
   order by m.draining_at is null, not m.is_old, m.here - t.fewest desc nulls last, m.id desc;
$$;
