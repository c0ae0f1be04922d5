-- Bring the flow (kirby.flow) and the index by parents up to date, over at most p_most positions; returns whether
-- more are left. Called by the leader every second: it looks at the new part of the log only.
--
-- Counted is only what is final. Messages: as far as they are counted (kirby.count_messages), which is below
-- the horizon of every topic. Mutations are not announced, but whoever writes one has locked the table before it
-- takes a position, and holds that lock to its end. So: 1. noted := last_value of the sequence; 2. writers := who
-- holds the lock; 3. when all of those are gone, what lies at or below noted is there, or never will be.
create or replace function kirby.count_flow(p_most integer default 250000)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
as $$
declare
  v_done    kirby.flow_counted;
  v_high    bigint;
  v_writers text[];
  v_message bigint;
  v_to      bigint;
begin
  perform kirby.check_isolation();
  select * into v_done from kirby.flow_counted for no key update;  -- one counter at a time

  select last_value into v_high from kirby.position;  -- step 1
  v_writers := array(  -- step 2
    select distinct l.virtualtransaction from pg_locks l
     where l.locktype = 'relation' and l.relation = 'kirby.state_mutation'::regclass
       and l.database = (select oid from pg_database where datname = current_database())
       and l.mode = 'RowExclusiveLock' and l.granted and l.pid is distinct from pg_backend_pid());
  if not v_done.writers && v_writers then  -- step 3, for what was noted the last time
    v_done.final := greatest(v_done.final, v_done.noted);
    v_done.noted := v_high;
    v_done.writers := v_writers;
  end if;
  if v_writers = '{}' then
    v_done.final := v_high;
  end if;
  v_message := least(kirby.counted_to(null), v_done.messages + p_most);
  v_to := least(v_done.final, v_done.mutations + p_most);
  if v_message <= v_done.messages and v_to <= v_done.mutations then
    update kirby.flow_counted set final = v_done.final, noted = v_done.noted, writers = v_done.writers
     where (final, writers) is distinct from (v_done.final, v_done.writers);
    return false;
  end if;

  with made as materialized (
    select * from kirby.flow_between(v_done.messages, v_message, v_done.mutations, v_to)
  ), counted as (
    insert into kirby.flow as f (environment_id, hour, source_id, job, release, kind, place_id, made, replays,
                                 first_at, last_at)
    select m.environment_id, m.hour, m.source_id, m.job, m.release, m.kind, m.place_id, sum(m.made), sum(m.replays),
           min(m.first_at), max(m.last_at)
      from made m
     group by m.environment_id, m.hour, m.source_id, m.job, m.release, m.kind, m.place_id
        on conflict (environment_id, hour, source_id, job, release, kind, place_id) do update
       set made = f.made + excluded.made, replays = f.replays + excluded.replays,
           first_at = least(f.first_at, excluded.first_at), last_at = greatest(f.last_at, excluded.last_at)
  ), indexed as (
    insert into kirby.parent_index as x (kind, place_id, source_id, position, lowest, highest, runs)
    select m.kind, m.place_id, coalesce(m.source_id, 0), (m.stretch + 1) * 5000 - 1, min(m.lowest), max(m.highest),
           bool_or(m.runs)
      from made m
     where m.lowest is not null
     group by m.kind, m.place_id, coalesce(m.source_id, 0), m.stretch
        on conflict (kind, place_id, source_id, position) do update
       set lowest = least(x.lowest, excluded.lowest), highest = greatest(x.highest, excluded.highest),
           runs = x.runs or excluded.runs
     where x.lowest > excluded.lowest or x.highest < excluded.highest or excluded.runs and not x.runs
  )
  update kirby.flow_counted
     set messages = greatest(v_message, messages), mutations = greatest(v_to, mutations),
         final = v_done.final, noted = v_done.noted, writers = v_done.writers;
  return v_message < kirby.counted_to(null) or v_to < v_done.final;
end;
$$;
