-- The replicas whose move would help most, the most urgent first, and where to: from a supervisor that drains; from a host
-- that has two more of its deployment than another one that could take it; from a supervisor that has more to do than
-- another one, by slots, even when the replica has moved there (as long as that host has fewer of the deployment). Each
-- such move makes the sum of squares of a deployment's replicas by host smaller, or leaves it and makes that of
-- all replicas by slots smaller: so this comes to rest. A deployment is left alone while one of its replicas is
-- on its way (kirby.is_moving).
create or replace function kirby.next_move()
  returns table (run_id bigint, reason text, destination uuid)
  language sql
  volatile
as $$
  with replica as (
    select r.id, r.deployment_id, r.labels, r.supervisor_id, s.host, s.draining_at,
           r.status = 'running' and not bool_or(kirby.is_moving(r)) over (partition by r.deployment_id) as quiet,
           count(*) over (partition by r.deployment_id, s.host) as here
      from kirby.run r
      left join kirby.supervisor s on s.id = r.supervisor_id
     where r.replica is not null and r.status in ('queued', 'starting', 'running')
  ), house as (  -- as it will be when what is on its way has arrived
    select l.id, l.host, l.slots, s.labels, l.runs + w.more as runs, l.replicas + w.more as replicas
      from kirby.loads() l
      join kirby.supervisor s on s.id = l.id
     cross join lateral (
           select count(*) filter (where r.destination = l.id and r.supervisor_id is distinct from l.id)
                  - count(*) filter (where r.destination <> l.id and r.supervisor_id = l.id) as more
             from kirby.run r
            where r.replica is not null
              and (r.status = 'queued' or (r.status in ('starting', 'running') and r.cancel_at is not null))) w
  )
  select m.id, case when m.draining_at is not null then 'its supervisor is being drained'
                    else 'moved to a host with fewer replicas' end, t.id
    from replica m
    left join house h on h.id = m.supervisor_id
    left join lateral (
         select t.id, t.there
           from (select o.*, (select count(*) from replica r
                               where r.deployment_id = m.deployment_id and r.host = o.host) as there
                   from house o
                  where o.runs < o.slots and m.labels <@ o.labels and o.id <> m.supervisor_id) t
          where m.draining_at is not null
             or (t.host <> m.host and m.here - t.there >= 2)
             or ((t.replicas + 1)::numeric / t.slots <= (h.replicas - 1)::numeric / h.slots
                 and (t.host = m.host or t.there < m.here))
          order by case when t.host = m.host then m.here - 1 else t.there end, (t.replicas + 1)::numeric / t.slots
          limit 1) t on true
   where m.quiet and (m.draining_at is not null or t.id is not null)
   order by m.draining_at is null, m.here - t.there desc nulls last, m.id desc;
$$;
