-- Mutations up to this position are counted wherever they are counted (kirby.keep_states, kirby.count_flow): they may go.
create or replace function kirby.compaction_horizon()
  returns bigint
  language sql
  stable
as $$
  select least(c.position, f.mutations) from kirby.mutations_counted c, kirby.flow_counted f;
$$;
