-- Remove the oldest versions that a state need not keep (kirby.set_compaction): those that another version of their key
-- followed on the same day, in the order of positions. Looks at p_most versions of the state at a time, or some thousand
-- more (kirby.moment says where they end), until it has found as many or p_budget is spent. Returns how many it removed,
-- and whether to go on at once. What it removed is an event of the log.
--
-- A short transaction. Writers do not wait for it: it locks only what nobody changes any more. One at a time for each
-- environment; what sets states back (kirby.compaction_lock) and this wait for each other. 55P03: not now.
create or replace function kirby.compact_state(
  p_state_id integer,
  p_most integer default 2000,
  p_budget interval default '200 ms',
  out removed integer,
  out more boolean
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms'
as $$
declare
  v_began  constant timestamptz := clock_timestamp();
  v_policy kirby.compaction;
  v_object text;
  v_cut    timestamptz;
  v_high   bigint;
  v_hold   bigint;
  v_from   bigint;
  v_upto   bigint;
  v_stop   bigint;
  v_some   record;
  v_keys   text[] := '{}';
  v_gone   bigint[] := '{}';
  v_next   bigint[] := '{}';
  v_at     timestamptz[] := '{}';
begin
  perform kirby.check_isolation();
  removed := 0;
  more := false;
  perform pg_advisory_xact_lock(kirby.compaction_lock(), s.environment_id) from kirby.state s where s.id = p_state_id;
  select * into v_policy from kirby.compaction c where c.state_id = p_state_id for update;
  if v_policy.keep is null then
    return;
  end if;
  v_cut := kirby.compaction_cut(v_policy.keep);
  v_high := kirby.compaction_horizon();
  select least(v_high, (kirby.compaction_hold(s.environment_id)).position), format('state/%s/%s', e.name, s.name)
    into v_hold, v_object
    from kirby.state s join kirby.environment e on e.id = s.environment_id where s.id = p_state_id;

  v_from := v_policy.looked;
  while v_from < v_high and v_stop is null and cardinality(v_gone) < p_most
        and clock_timestamp() < v_began + p_budget loop
    v_upto := least(v_high, (select m.position from kirby.moment m
                              where m.state_id = p_state_id and m.position > v_from
                              order by m.position offset p_most / 1000 limit 1));
    with found as materialized (
      select * from kirby.compactable(p_state_id, v_from, v_upto, v_cut, v_hold)
    ), stop as (
      select min(f.position) as position from found f where f.blocked
    )
    select array_agg(f.key) as keys, array_agg(f.position) as positions, array_agg(f.next) as next,
           array_agg(f.recorded_at) as at, (select s.position from stop s) as stop
      into v_some
      from found f
     where f.position < (select coalesce(s.position, v_upto + 1) from stop s);
    v_keys := v_keys || v_some.keys;
    v_gone := v_gone || v_some.positions;
    v_next := v_next || v_some.next;
    v_at := v_at || v_some.at;
    v_stop := v_some.stop;
    v_from := coalesce(v_stop - 1, v_upto);
  end loop;
  removed := cardinality(v_gone);
  more := v_from < v_high and v_stop is null;
  if v_from = v_policy.looked then
    return;
  end if;

  update kirby.compaction c
     set looked = v_from, removed = c.removed + compact_state.removed,
         exact_from = greatest(c.exact_from, (select max(n.position) from unnest(v_next) as n (position)))
   where c.state_id = p_state_id;
  if removed > 0 then
    perform kirby.remove_versions(p_state_id, v_keys, v_gone, v_next, v_at);
    perform kirby.audit('kirby', 'state_compacted', v_object, p_reason => v_policy.reason, p_after => (
      select jsonb_build_object(
               'versions', count(*), 'keys', count(distinct g.key),
               'positions', jsonb_build_array(min(g.position), max(g.position)),
               'days', jsonb_build_array(min(kirby.day_of(g.at)), max(kirby.day_of(g.at))),
               'daily_after', v_policy.keep, 'set_by', v_policy.actor)
        from unnest(v_keys, v_gone, v_at) as g (key, position, at)));
  end if;
end;
$$;
