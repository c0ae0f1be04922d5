-- The name of the job of a run; NULL: there is no such run.
create or replace function kirby.job_of(p_run_id bigint)
  returns text
  language sql
  stable
as $$
  select j.name
    from kirby.run r
    join kirby.deployment d on d.id = r.deployment_id
    join kirby.job j on j.id = d.job_id
   where r.id = p_run_id;
$$;
