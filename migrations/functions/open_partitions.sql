-- Open the partitions of every log from the current position to p_ahead partitions beyond it; returns how
-- many were opened. Idempotent; called by the leader and migrations. What had to be written to the default
-- partition meanwhile is taken out of it first.
--
-- A partition has 10 million positions; beyond thirty of them in a log they get wider, twice for each
-- four more, so that a log that is never cut has about fifty and a query does not lock thousands.
create or replace function kirby.open_partitions(p_ahead integer default 2)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_unit   constant bigint := 10000000;
  v_log    text;
  v_now    bigint;
  v_ranges record;
  v_first  bigint;
  v_opened integer := 0;
begin
  select last_value into v_now from kirby.position;
  foreach v_log in array array['message', 'job_event', 'log_line', 'state_mutation', 'secret_access', 'audit_event'] loop
    perform kirby.empty_default(v_log);
    loop
      select count(*) filter (where p.first > v_now) as ahead, count(p.first) as live, max(p.last) as last
        into v_ranges from kirby.partitions(v_log) p;
      exit when v_ranges.ahead >= p_ahead and v_ranges.last >= v_now;
      v_first := greatest(v_ranges.last + 1, v_now / v_unit * v_unit);
      perform kirby.open_partition(v_log, v_first,
        v_first + v_unit * (2 ^ least(20, greatest(0, v_ranges.live - 30) / 4))::bigint);
      v_opened := v_opened + 1;
    end loop;
    if to_regclass('kirby.' || v_log || '_default') is null then
      execute format('create table kirby.%I partition of kirby.%I default', v_log || '_default', v_log);
      perform kirby.guard_log(v_log, v_log || '_default');
    end if;
  end loop;
  return v_opened;
end;
$$;
