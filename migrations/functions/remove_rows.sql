-- Remove the oldest expired rows of a log other than that of messages, at most p_limit; returns how many.
-- A run's lines go by its primary key; run ids grow with time, so the search ends at a run that was queued
-- later than what may go.
create or replace function kirby.remove_rows(p_log text, p_limit integer default 5000)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms'
as $$
declare
  v_before timestamptz;
  v_run    bigint := -1;
  v_part   integer;
  v_rows   integer := 0;
begin
  select kirby.now() - l.keep into v_before from kirby.log_retention l where l.log = p_log;
  if v_before is null then
    return 0;
  end if;
  perform set_config('kirby.removing', p_log, true);
  if p_log <> 'log_line' then
    execute format(
      'delete from kirby.%I l
        where l.position <= (select max(o.position)
                               from (select h.position, h.recorded_at from kirby.%I h order by h.position limit %s) o
                              where o.recorded_at < $1)
          and l.recorded_at < $1', p_log, p_log, p_limit) using v_before;
    get diagnostics v_rows = row_count;
  else
    loop
      select min(l.run_id) into v_run from kirby.log_line l where l.run_id > v_run;
      exit when v_run is null or (select r.queued_at from kirby.run r where r.id = v_run) >= v_before;
      delete from kirby.log_line l
       where l.run_id = v_run and l.at < v_before
         and l.position <= (select max(o.position)
                              from (select h.position from kirby.log_line h
                                     where h.run_id = v_run order by h.position limit p_limit - v_rows) o);
      get diagnostics v_part = row_count;
      v_rows := v_rows + v_part;
      exit when v_rows >= p_limit;
    end loop;
  end if;
  perform set_config('kirby.removing', '', true);
  return v_rows;
end;
$$;
