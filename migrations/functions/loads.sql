-- What each supervisor that takes runs has under way: runs in all, daemons' replicas in all, and replicas of one
-- deployment. Those that are alive, do not drain, and have all of the labels.
create or replace function kirby.loads(p_deployment_id integer default null, p_labels text[] default '{}')
  returns table (id uuid, host text, slots integer, runs integer, replicas integer, here integer)
  language sql
  volatile
as $$
  select s.id, s.host, s.slots::integer, count(r.id)::integer, count(r.replica)::integer,
         (count(r.replica) filter (where r.deployment_id = p_deployment_id))::integer
    from kirby.supervisor s
    left join kirby.run r on r.supervisor_id = s.id and r.status in ('starting', 'running')
   where s.ended_at is null and s.lease_until > kirby.now() and s.draining_at is null and p_labels <@ s.labels
   group by s.id;
$$;
