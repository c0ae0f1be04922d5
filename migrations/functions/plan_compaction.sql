-- What compaction would remove by now from a state that keeps all versions of so long (kirby.compactable, from where it
-- has got to): how many versions, of how many keys and days, from which to which position and moment; "of" is how many
-- there are. Upto: the end of the last day that is old enough. Held_by: the rewind that it stops at. Changes nothing.
-- KB001 (kirby.check_keep).
create or replace function kirby.plan_compaction(
  p_state_id integer,
  p_keep interval,
  out versions bigint,
  out keys bigint,
  out days bigint,
  out first bigint,
  out last bigint,
  out first_at timestamptz,
  out last_at timestamptz,
  out "of" bigint,
  out upto timestamptz,
  out held_by bigint
)
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set jit = off
as $$
declare
  v_looked bigint := coalesce((select c.looked from kirby.compaction c where c.state_id = p_state_id), 0);
  v_high   bigint := kirby.compaction_horizon();
  v_hold   record;
begin
  perform kirby.check_keep(p_keep);
  upto := kirby.compaction_cut(p_keep);
  select h.* into v_hold
    from kirby.state s cross join lateral kirby.compaction_hold(s.environment_id) h where s.id = p_state_id;
  with found as materialized (
    select * from kirby.compactable(p_state_id, v_looked, least(v_high, kirby.position_by(p_state_id, upto)), upto,
                                    least(v_high, v_hold.position))
  ), stop as (
    select min(f.position) as position from found f where f.blocked
  )
  select count(*) filter (where f.before), count(distinct f.key) filter (where f.before),
         count(distinct kirby.day_end(f.recorded_at)) filter (where f.before),
         min(f.position) filter (where f.before), max(f.position) filter (where f.before),
         min(f.recorded_at) filter (where f.before), max(f.recorded_at) filter (where f.before),
         case when bool_or(not f.before and kirby.day_end(f.recorded_at) <= upto and f.next > v_hold.position)
              then v_hold.rewind_id end
    into versions, keys, days, first, last, first_at, last_at, held_by
    from (select found.*, coalesce(found.position < stop.position, true) as before from found, stop) f;
  select count(*) into "of" from kirby.state_mutation m where m.state_id = p_state_id;
end;
$$;
