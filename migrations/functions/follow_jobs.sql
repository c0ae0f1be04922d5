-- A run has succeeded: the deployments of its environment that run after its job have a tick now. It is judged as any other.
create or replace function kirby.follow_jobs(p_run kirby.run)
  returns void
  language sql
  volatile
as $$
  insert into kirby.tick (deployment_id, at, local, note, own, after_run)
  select f.id, n.at, kirby.wall(n.at, v.tz), format('after run %s of %s', p_run.id, j.name),
         false, p_run.id
    from kirby.deployment d
    join kirby.job j on j.id = d.job_id
    join kirby.deployment f on f.environment_id = d.environment_id and f.follows @> array[j.name]
    join kirby.deployment_version v on v.deployment_id = f.id and v.version = f.version
   cross join (select kirby.now() as at) n
   where d.id = p_run.deployment_id
      on conflict (deployment_id, at) do update set after_run = excluded.after_run;
$$;
