-- The channels that are told of an exception: those with a route for everything there, or for a job that it concerns. A
-- route that is restricted to kinds of incidents hears of none.
create or replace function kirby.exception_channels(p_exception_id integer, p_event text)
  returns setof kirby.channel
  language sql
  stable
as $$
  with concerned as (
    select d.environment_id, j.name as job, v.tags
      from kirby.schedule_exception x
     cross join unnest(kirby.deployments_in(x.environment_id, x.scope, x.target)) as c (id)
      join kirby.deployment d on d.id = c.id
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where x.id = p_exception_id
  )
  select c.*
    from kirby.channel c
   cross join kirby.schedule_exception x
   where x.id = p_exception_id and coalesce(x.environment_id = c.environment_id, true)
     and exists (
         select from kirby.route r
          where r.channel_id = c.id and p_event = any (r.events) and r.kinds = '{}'
            and coalesce(x.environment_id = r.environment_id, true)
            and (r.scope = 'everything' or exists (
                 select from concerned a
                  where coalesce(a.environment_id = c.environment_id, true)
                    and coalesce(a.environment_id = r.environment_id, true)
                    and case r.scope when 'job' then a.job = r.target else r.target = any (a.tags) end)))
   order by c.id;
$$;
