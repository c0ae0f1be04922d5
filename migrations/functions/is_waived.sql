-- Whether nothing is asked of a tick any more: it is gone, a calendar excludes it, or an exception has held it.
create or replace function kirby.is_waived(p_tick kirby.tick)
  returns boolean
  language sql
  volatile
as $$
  select p_tick.at is null or p_tick.excluded is not null
      or p_tick.run_id is null and kirby.is_at_rest(p_tick.deployment_id, p_tick.at,
           case p_tick.status when 'planned' then array['pause', 'manual', 'skip'] end);
$$;
