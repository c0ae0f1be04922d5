-- What a state was at a position of the log, or at a moment (what was recorded by then), or is now: the newest
-- version of each key up to there, by key, those left out that had no value. For these keys, or for all with a
-- prefix, after a key.
--
-- All of a state is put together from its newest snapshot up to there and the mutations since, which are no more than
-- kirby.keep_states lets come together; without one from all mutations. Some keys are looked up one by one. A moment
-- ends the search at a position (kirby.moment), but recorded_at decides.
create or replace function kirby.entries_at(
  p_state_id integer,
  p_position bigint default null,
  p_when timestamptz default null,
  p_keys text[] default null,
  p_prefix text default '',
  p_after text default null,
  p_limit integer default null
)
  returns table (key text, version bigint, value jsonb, "position" bigint, run_id bigint, recorded_at timestamptz)
  language plpgsql
  stable
  set jit = off
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_from constant text := greatest(p_prefix, p_after);
  v_last constant text := p_prefix || repeat(chr(1114111), 256);  -- no key with the prefix lies behind it
  v_to   constant bigint := least(p_position, kirby.position_by(p_state_id, p_when));
  v_base bigint;
begin
  if p_keys is not null then
    return query select * from kirby.entries_of(p_state_id, p_keys, v_to, p_when);
    return;
  elsif p_position is null and p_when is null then
    return query
      select e.key, e.version, e.value, e.position, e.run_id, e.updated_at from kirby.state_entry e
       where e.state_id = p_state_id and e.op = 'set' and e.key >= v_from and e.key <= v_last
         and starts_with(e.key, p_prefix) and (p_after is null or e.key > p_after)
       order by e.key limit p_limit;
    return;
  end if;

  select coalesce(max(s.position), 0) into v_base from kirby.state_snapshot s
   where s.state_id = p_state_id and s.position <= v_to and (p_when is null or s.latest <= p_when);
  return query
    with changed as materialized (
      select distinct on (m.key) m.*
        from kirby.state_mutation m
       where m.state_id = p_state_id and m.position > v_base and m.position <= v_to
         and (p_when is null or m.recorded_at <= p_when) and m.key >= v_from and m.key <= v_last
       order by m.key, m.position desc
    )
    select * from (
      select c.key, c.version, c.value, c.position, c.run_id, c.recorded_at from changed c where c.op = 'set'
       union all
      select e.key, e.version, e.value, e.position, e.run_id, e.recorded_at
        from kirby.state_snapshot_entry e
       where e.state_id = p_state_id and e.snapshot = v_base and e.key >= v_from and e.key <= v_last
         and not exists (select from changed c where c.key = e.key)) u
     where starts_with(u.key, p_prefix) and (p_after is null or u.key > p_after)
     order by u.key limit p_limit;
end;
$$;
