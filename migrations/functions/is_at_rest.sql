-- Whether a deployment is silent on purpose at a moment: an exception is in force, one of these effects if p_effects is given.
create or replace function kirby.is_at_rest(p_deployment_id integer, p_at timestamptz, p_effects text[] default null)
  returns boolean
  language sql
  volatile
as $$
  select exists (select from kirby.exceptions_of(p_deployment_id, p_at) x
                  where p_effects is null or x.effect = any(p_effects));
$$;
