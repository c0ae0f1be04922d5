-- Decide on the ticks of a deployment that are due: each becomes a run or is skipped, with its reason; the tick and its
-- run are one transaction. Returns how many were queued. What is decided in this order:
-- 1. what holds it back: an exception, a calendar (kirby.judge_tick);
-- 2. catch-up: of several that are due only the last one runs (last, none), not at all after its start_by (none), or the
--    last catch_up_most of them, one after the other (all);
-- 3. overlap: one that comes while a run is under way is skipped, unless the deployment says that runs wait for each
--    other, go on beside each other, or replace each other (concurrency). What is caught up waits instead, and all ticks
--    of a deployment that catches up on all, unless it says skip. What an exception has promised for its end is never
--    skipped: it is put off (kirby.put_off_return).
create or replace function kirby.fire_deployment(p_deployment_id integer)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_now     timestamptz := kirby.now();
  v_version kirby.deployment_version;
  v_tick    kirby.tick;
  v_held    record;
  v_reason  text;
  v_returns boolean;
  v_left    integer;
  v_is_last boolean := true;
  v_fired   integer := 0;
begin
  select v.* into v_version
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_deployment_id
     for no key update of d skip locked;
  if not found then
    return 0;  -- it is being planned, or another leader is at it
  end if;
  select count(*) into v_left from kirby.tick t
   where t.deployment_id = p_deployment_id and t.status = 'planned' and coalesce(t.fire_at, t.at) <= v_now;

  for v_tick in
    select * from kirby.tick t
     where t.deployment_id = p_deployment_id and t.status = 'planned' and coalesce(t.fire_at, t.at) <= v_now
     order by t.again desc, case when t.again or v_version.catch_up = 'all' then t.at end, t.at desc
  loop
    v_left := v_left - 1;
    v_returns := v_tick.again or v_tick.returns <> '{}' and not v_tick.own;
    select * into v_held from kirby.judge_tick(v_tick, v_version.tz);
    v_reason := v_held.reason;
    if v_reason is null and not v_returns and v_tick.after_run is null then
      v_reason := case
        when v_version.catch_up = 'all' and v_left >= v_version.catch_up_most
          then format('more than %s ticks were due', v_version.catch_up_most)
        when v_version.catch_up <> 'all' and not v_is_last then 'a later tick was due already'
        when v_version.catch_up = 'none' and kirby.is_late(v_tick, v_now) then 'it was too late for it'
      end;
      v_is_last := false;
    end if;
    if v_reason is null and v_version.concurrency in ('default', 'skip') and kirby.live_run(p_deployment_id) is not null then
      continue when v_returns
        or v_version.catch_up = 'all' and (v_version.concurrency = 'default' or kirby.is_late(v_tick, v_now));
      v_reason := 'the run before it had not ended';
    end if;
    if v_reason is null and v_returns and not v_tick.again and not kirby.is_missed(v_tick) then
      delete from kirby.tick where deployment_id = p_deployment_id and at = v_tick.at;  -- nothing was held: nothing to make up
    elsif v_reason is null then
      perform kirby.run_tick(v_tick);
      v_fired := v_fired + 1;
    elsif v_returns or v_tick.returns <> '{}' then
      perform kirby.put_off_return(v_tick, v_reason, v_held.held_by);
    else
      perform kirby.skip_tick(v_tick, v_reason, v_held.held_by);
    end if;
  end loop;
  return v_fired;
end;
$$;
