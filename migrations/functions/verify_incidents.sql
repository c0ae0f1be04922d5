-- Incidents that are not what the log says of them: an open one was opened and is not over, a resolved one has the event of
-- its end (as far as the log of job events goes back).
create or replace function kirby.verify_incidents()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  with said as (
    select (e.data ->> 'incident')::bigint as id,
           (array_agg(case e.type when 'incident_resolved' then 'resolved' else 'open' end
                      order by e.position desc) filter (where e.type <> 'incident_told'))[1] as status,
           count(*) filter (where e.type in ('incident_opened', 'incident_updated')) as count
      from kirby.job_event e
     where e.type in ('incident_opened', 'incident_updated', 'incident_told', 'incident_resolved')
     group by 1
  )
  select format('incident %s', coalesce(s.id, i.id)),
         jsonb_build_object('status', s.status, 'count', s.count),
         jsonb_build_object('status', i.status, 'count', i.count)
    from said s
    full join kirby.incident i on i.id = s.id
    left join kirby.log_retention l on l.log = 'job_event'
   where (i.status is distinct from s.status or (i.kind <> 'storm' and i.count <> s.count))
     and not coalesce(i.opened_at < kirby.now() - l.keep, false);
$$;
