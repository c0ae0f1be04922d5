-- Whether a supervisor takes a replica. It looks at those that could take it (a free slot, the labels, not draining):
-- while its host has less than its share of the deployment's replicas there, it does, unless another supervisor of the
-- host has less to do. Those that remain when every host has the same number go where there are fewest replicas of
-- all deployments, by slots. One that was moved goes where it is to go. A replica that nobody took for 5 s goes to whoever
-- asks: the shares are a matter of balance, being alive is not.
create or replace function kirby.has_place(p_run kirby.run, p_supervisor kirby.supervisor)
  returns boolean
  language plpgsql
  volatile
as $$
declare
  v_queued integer;  -- replicas that are to be placed: of the deployment, and of all
  v_total  integer;
  v_place  boolean;
begin
  if p_run.not_before < kirby.now() - interval '5 seconds' then
    return true;
  end if;
  if exists (select from kirby.loads(null, p_run.labels) l where l.id = p_run.destination and l.runs < l.slots) then
    return p_supervisor.id = p_run.destination;
  end if;
  select count(*) filter (where r.deployment_id = p_run.deployment_id), count(*) into v_queued, v_total
    from kirby.run r
   where r.replica is not null and r.status = 'queued';

  with free as (
    select * from kirby.loads(p_run.deployment_id, p_run.labels) l where l.runs < l.slots or l.id = p_supervisor.id
  ), hosts as (
    select f.host, sum(f.here) as here from free f group by f.host
  ), share as (  -- of the deployment, for a host: so many, and one more for some
    select (sum(h.here) + v_queued)::integer / count(*) as here, (sum(h.here) + v_queued)::integer % count(*) as rest
      from hosts h
  ), shares as (  -- of all replicas, for a supervisor
    select f.id, f.replicas, floor((sum(f.replicas) over () + v_total) * f.slots / sum(f.slots) over ()) as part,
           sum(f.replicas) over () + v_total as total
      from free f
  )
  select case
           when h.here < s.here then not exists (
             select from free o
              where o.host = m.host and o.id <> m.id
                and (o.replicas + 1)::numeric / o.slots < (m.replicas + 1)::numeric / m.slots)
           when h.here > s.here or (select count(*) from hosts o where o.here > s.here) >= s.rest then false
           else (select w.replicas < w.part
                        or (w.replicas = w.part
                            and (select count(*) from shares o where o.replicas > o.part)
                                < w.total - (select sum(o.part) from shares o))
                   from shares w where w.id = m.id)
         end
    into v_place
    from free m
    join hosts h on h.host = m.host
   cross join share s
   where m.id = p_supervisor.id;
  return v_place;
end;
$$;
