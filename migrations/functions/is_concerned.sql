-- Whether an exception with that scope concerns a deployment: the job of that name, one with that tag, one that reads that
-- topic (as it says, as its code says, or since it has a subscription there), all of an environment, or all.
create or replace function kirby.is_concerned(
  p_deployment_id integer, p_environment_id smallint, p_scope text, p_target text
)
  returns boolean
  language sql
  stable
as $$
  select (p_environment_id is null or d.environment_id = p_environment_id) and case p_scope
           when 'job' then j.name = p_target
           when 'tag' then p_target = any (v.tags)
           when 'topic' then coalesce(v.needs -> 'reads' ? p_target, false) or exists (
             select from kirby.topic t
               join kirby.subscription s on s.topic_id = t.id
              where t.environment_id = d.environment_id and t.name = p_target
                and (s.name = j.name or exists (select from kirby.declaration c
                                                 where c.subscription_id = s.id and c.job = j.name)))
           else true
         end
    from kirby.deployment d
    join kirby.job j on j.id = d.job_id
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_deployment_id;
$$;
