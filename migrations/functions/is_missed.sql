-- Whether the exceptions after which a tick is to run held anything of its deployment.
create or replace function kirby.is_missed(p_tick kirby.tick)
  returns boolean
  language sql
  volatile
as $$
  select exists (select from unnest(p_tick.returns) as x (id), kirby.held_ticks(p_tick, x.id));
$$;
