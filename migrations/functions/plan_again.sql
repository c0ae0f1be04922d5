-- Plan the ticks of these deployments anew at the leader's next look: what they depend on has changed.
create or replace function kirby.plan_again(p_deployment_ids integer[])
  returns void
  language sql
  volatile
as $$
  update kirby.deployment set plan_at = 'epoch'
   where id in (select d.id from kirby.deployment d where d.id = any (p_deployment_ids) order by d.id for no key update);
$$;
