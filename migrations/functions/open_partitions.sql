-- Open the partitions of every log from the current position to p_ahead ranges beyond it; returns how
-- many were opened. A range is 10 million positions. Idempotent; called by the leader and migrations.
-- Partitions refuse changes themselves too: a statement that names one would not fire the log's trigger.
create or replace function kirby.open_partitions(p_ahead integer default 2)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_width  constant bigint := 10000000;
  v_log    text;
  v_range  bigint;
  v_name   text;
  v_opened integer := 0;
begin
  foreach v_log in array array['message', 'job_event', 'log_line', 'state_mutation', 'secret_access', 'audit_event'] loop
    for v_range in select generate_series(last_value / v_width, last_value / v_width + p_ahead) from kirby.position loop
      v_name := v_log || '_' || v_range;
      continue when to_regclass('kirby.' || v_name) is not null;
      execute format('create table kirby.%I (like kirby.%I including defaults including constraints)', v_name, v_log);
      execute format('alter table kirby.%I attach partition kirby.%I for values from (%s) to (%s)',
                     v_log, v_name, v_range * v_width, (v_range + 1) * v_width);
      execute format('create trigger append_only before update or delete or truncate on kirby.%I
                        for each statement execute function kirby.refuse_change()', v_name);
      v_opened := v_opened + 1;
    end loop;
    continue when to_regclass('kirby.' || v_log || '_default') is not null;
    execute format('create table kirby.%I partition of kirby.%I default', v_log || '_default', v_log);
    execute format('create trigger append_only before update or delete or truncate on kirby.%I
                      for each statement execute function kirby.refuse_change()', v_log || '_default');
  end loop;
  return v_opened;
end;
$$;
