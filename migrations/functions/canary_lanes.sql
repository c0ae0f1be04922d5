-- How many lanes of each band belong to the canary that serves a share of the keys: the first ones, one at the
-- least; one at the least is left to the deployed version.
create or replace function kirby.canary_lanes(p_share real, p_topic kirby.topic)
  returns integer
  language sql
  immutable
as $$
  select least(greatest(1, round(p_share * (p_topic.lanes / p_topic.bands))::integer), p_topic.lanes / p_topic.bands - 1);
$$;
