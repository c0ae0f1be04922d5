-- The newest run of a tick (its attempts follow each other), or nothing.
create or replace function kirby.run_of_tick(p_tick kirby.tick)
  returns kirby.run
  language sql
  stable
as $$
  select r from kirby.run r
   where r.deployment_id = p_tick.deployment_id and r.id >= p_tick.run_id and r.tick_at = p_tick.at
     and r.shadow_id is null
   order by r.id desc limit 1;
$$;
