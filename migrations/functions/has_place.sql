-- Whether a supervisor takes a replica: while its host has less than its share of the deployment's replicas. Those that
-- remain when every host has the same number go where there are fewest replicas of all deployments, by slots. A replica
-- that nobody took for 5 s goes to whoever asks: the shares are a matter of balance, being alive is not.
create or replace function kirby.has_place(p_run kirby.run, p_supervisor kirby.supervisor)
  returns boolean
  language plpgsql
  volatile
as $$
declare
  v_all    integer;  -- replicas of the deployment, wherever they are
  v_hosts  integer;
  v_mine   integer;
  v_over   integer;  -- hosts that have more than the smaller share
  v_total  integer;  -- replicas of all deployments
  v_place  boolean;
begin
  if p_run.not_before < kirby.now() - interval '5 seconds' then
    return true;
  end if;
  select count(*) into v_all from kirby.run r
   where r.deployment_id = p_run.deployment_id and r.replica is not null and r.status in ('queued', 'starting', 'running');
  with free as (
    select * from kirby.loads(p_run.deployment_id, p_run.labels) l where l.runs < l.slots or l.id = p_supervisor.id
  ), hosts as (
    select f.host, sum(f.here) as here, count(*) over () as hosts from free f group by f.host
  )
  select max(h.hosts), sum(h.here) filter (where h.host = p_supervisor.host),
         count(*) filter (where h.here > v_all / h.hosts)
    into v_hosts, v_mine, v_over
    from hosts h;
  if v_mine < v_all / v_hosts then
    return true;
  elsif v_mine > v_all / v_hosts or v_over >= v_all % v_hosts then
    return false;
  end if;

  select count(*) into v_total from kirby.run r
   where r.replica is not null and r.status in ('queued', 'starting', 'running');
  with free as (
    select l.id, l.replicas, floor(v_total::numeric * l.slots / sum(l.slots) over ()) as share
      from kirby.loads(p_run.deployment_id, p_run.labels) l
     where l.runs < l.slots or l.id = p_supervisor.id
  )
  select f.replicas < f.share or (f.replicas = f.share and o.over < v_total - o.shares) into v_place
    from free f, (select sum(share) as shares, count(*) filter (where replicas > share) as over from free) o
   where f.id = p_supervisor.id;
  return v_place;
end;
$$;
