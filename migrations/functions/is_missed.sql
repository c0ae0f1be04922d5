-- Whether the exceptions after which a tick is to run held anything of its deployment.
create or replace function kirby.is_missed(p_tick kirby.tick)
  returns boolean
  language sql
  volatile
as $$
  select exists (select from kirby.tick t
                  where t.deployment_id = p_tick.deployment_id and t.at < p_tick.at and t.held_by && p_tick.returns);
$$;
