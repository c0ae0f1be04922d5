-- Count the mutations that came since the last time, at most p_most positions of them; note what moments lead to
-- which positions, and take the snapshots that are due. Returns whether more are left. Called by the leader every
-- second; it looks at the new part of the log only, by its BRIN index.
--
-- Counted is what lies below kirby.state_horizon, so it is final, and a snapshot at that position has exactly the
-- mutations up to there that will ever be. One is due after 10,000 mutations of the state, and after as many as
-- it had keys at the last one: so there are at most two entries of snapshots for each mutation.
create or replace function kirby.keep_states(p_most integer default 200000)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
as $$
declare
  v_done bigint;
  v_high bigint;
  v_to   bigint;
begin
  select c.position into v_done from kirby.mutations_counted c for no key update;  -- one at a time
  v_high := kirby.state_horizon();
  v_to := least(v_high, v_done + p_most);
  if v_to <= v_done then
    return false;
  end if;

  with news as materialized (
    select m.state_id, m.position / 1000 as stretch, count(*) as mutations,
           max(m.recorded_at) as latest, min(m.recorded_at) as earliest
      from kirby.state_mutation m
     where m.position > v_done and m.position <= v_to
     group by 1, 2
  ), stretches as materialized (
    -- How many mutations there were up to a stretch, and the earliest moment of it and of all that follow: clocks may
    -- have been set back.
    select n.state_id, greatest(n.stretch * 1000 - 1, v_done) as position, n.mutations,
           coalesce(c.mutations, 0) + sum(n.mutations) over up - n.mutations as before,
           min(n.earliest) over (partition by n.state_id order by n.stretch desc) as at
      from news n
      left join kirby.state_count c on c.state_id = n.state_id
    window up as (partition by n.state_id order by n.stretch)
  ), counts as (
    insert into kirby.state_count as c (state_id, mutations, latest)
    select n.state_id, sum(n.mutations), max(n.latest) from news n group by n.state_id order by n.state_id
        on conflict (state_id) do update
       set mutations = c.mutations + excluded.mutations, latest = greatest(c.latest, excluded.latest)
  ), later as (
    update kirby.moment m set at = e.at
      from (select s.state_id, min(s.at) as at from stretches s group by s.state_id) e
     where m.state_id = e.state_id and m.at > e.at
  )
  insert into kirby.moment (state_id, position, at)
  select s.state_id, s.position, s.at
    from stretches s
   where div(s.before + s.mutations, 1000) > div(s.before, 1000)
      on conflict do nothing;

  update kirby.mutations_counted set position = v_to;
  perform kirby.take_snapshot(c.state_id)
     from kirby.state_count c
     left join lateral (select s.mutations, s.keys from kirby.state_snapshot s
                         where s.state_id = c.state_id order by s.position desc limit 1) s on true
    where c.mutations - coalesce(s.mutations, 0) >= greatest(10000, s.keys);
  return v_to < v_high;
end;
$$;
