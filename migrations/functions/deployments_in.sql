-- The deployments that an exception with that scope concerns (kirby.is_concerned).
create or replace function kirby.deployments_in(p_environment_id smallint, p_scope text, p_target text)
  returns integer[]
  language sql
  stable
as $$
  select array(select d.id from kirby.deployment d
                where d.version > 0 and kirby.is_concerned(d.id, p_environment_id, p_scope, p_target)
                order by d.id);
$$;
