-- Trigger: another version of a deployment is planned anew, and follows the jobs that it names (after: JOB).
create or replace function kirby.plan_deployment()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update kirby.deployment d
     set plan_at = 'epoch', follows = array(
           select substring(line from '^\s*[Aa][Ff][Tt][Ee][Rr]\s*:\s*(\S+)\s*$')
             from kirby.deployment_version v, unnest(v.schedules) as line
            where v.deployment_id = new.id and v.version = new.version and line ~* '^\s*after\s*:')
   where d.id = new.id;
  return null;
end;
$$;

create or replace trigger plan_deployment after update of version on kirby.deployment
  for each row execute function kirby.plan_deployment();
