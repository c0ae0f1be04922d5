-- Whether p_most ticks of the same deployment ran in the p_per seconds before this one.
create or replace function kirby.is_too_often(p_tick kirby.tick, p_most integer, p_per real)
  returns boolean
  language sql
  volatile
as $$
  select count(*) >= p_most from kirby.tick t
   where t.deployment_id = p_tick.deployment_id and t.status = 'queued'
     and t.at > p_tick.at - make_interval(secs => p_per) and t.at < p_tick.at;
$$;
