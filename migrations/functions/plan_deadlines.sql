-- Trigger: a tick that is planned has its marks from that moment on: by when its run must have started (start_by; else
-- half the time to the next tick, between half a minute and ten), and by when it must have succeeded (finish_by, if
-- that is said). A tick that a calendar excludes has none.
create or replace function kirby.plan_deadlines()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into kirby.deadline as l (deployment_id, kind, tick_at, due_at)
  select p.deployment_id, k.kind, p.at, p.fire_at + case k.kind
           when 'start' then coalesce(make_interval(secs => v.start_by),
                                      greatest('30 seconds', least('10 minutes', p.period / 2)))
           else make_interval(secs => v.finish_by) end
    from (select n.deployment_id, n.at, coalesce(n.fire_at, n.at) as fire_at, n.status, n.excluded,
                 coalesce(lead(n.at) over w - n.at, n.at - lag(n.at) over w,
                          n.at - (select max(t.at) from kirby.tick t
                                   where t.deployment_id = n.deployment_id and t.at < n.at)) as period
            from new_ticks n
          window w as (partition by n.deployment_id order by n.at)) p
    join kirby.deployment d on d.id = p.deployment_id
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   cross join (values ('start'), ('finish')) as k (kind)
   where p.status <> 'skipped' and p.excluded is null and (k.kind = 'start' or v.finish_by is not null)
      on conflict (deployment_id, kind, subject, tick_at) do update
     set due_at = excluded.due_at, status = 'open', closed_at = null
   where l.status in ('open', 'void');
  return null;
end;
$$;

create or replace trigger plan_deadlines
  after insert on kirby.tick
  referencing new table as new_ticks
  for each statement execute function kirby.plan_deadlines();
