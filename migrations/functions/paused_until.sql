-- Until when a deployment is paused, or to be run by hand only, at a moment; null: it is not.
create or replace function kirby.paused_until(p_deployment_id integer, p_at timestamptz)
  returns timestamptz
  language sql
  volatile
as $$
  select max(x.until_at) from kirby.exceptions_of(p_deployment_id, p_at) x where x.effect in ('pause', 'manual');
$$;
