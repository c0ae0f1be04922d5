-- The channels that are told of an event of an incident: those with a route that names it. A storm is told to whoever
-- would have been told of any incident in it, and nothing is told through the channel that it is about. Who was told
-- nothing of its beginning, since the route was not there yet, is told nothing of its end.
create or replace function kirby.channels_of(p_incident_id bigint, p_event text)
  returns setof kirby.channel
  language sql
  stable
as $$
  with about as (
    select i.environment_id, i.kind, j.name as job, v.tags, i.details ->> 'channel_id' as channel_id
      from kirby.incident i
      left join kirby.deployment d on d.id = i.deployment_id
      left join kirby.job j on j.id = d.job_id
      left join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where i.id = p_incident_id or i.told_in = p_incident_id
  )
  select c.*
    from kirby.channel c
   where exists (
         select from kirby.route r, about a
          where r.channel_id = c.id and p_event = any (r.events)
            and (p_event <> 'resolved' or r.created_at <= coalesce(
                  (select i.announced_at from kirby.incident i where i.id = p_incident_id), 'infinity'))
            and (r.kinds = '{}' or a.kind = any (r.kinds))
            and coalesce(a.environment_id = c.environment_id, true)
            and coalesce(a.environment_id = r.environment_id, true)
            and (a.kind <> 'channel' or a.channel_id is distinct from c.id::text)
            and case r.scope when 'job' then a.job = r.target
                             when 'tag' then r.target = any (a.tags)
                             else true end)
   order by c.id;
$$;
