-- How many instants the schedule of a tick's deployment had before it, from a moment on.
create or replace function kirby.ticks_since(p_tick kirby.tick, p_from timestamptz)
  returns bigint
  language sql
  volatile
as $$
  select count(*) from kirby.tick t
   where t.deployment_id = p_tick.deployment_id and t.own and t.excluded is null and t.at >= p_from and t.at < p_tick.at;
$$;
