-- Append lines of runs to the log, one by one; p_lines: [{"r": run id, "s": stream, "l": level,
-- "x": text, "t": seconds since 1970}, …], oldest first. Supervisors of before kirby.append_lines
-- call this. Lines of runs that this supervisor no longer has are refused (KB005).
create or replace function kirby.append_log_lines(p_supervisor_id uuid, p_lines jsonb)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into kirby.log_line (position, run_id, stream, level, text, at)
  select nextval('kirby.position'), l.r, l.s, l.l, l.x, to_timestamp(l.t)
    from (select * from rows from (
            jsonb_to_recordset(p_lines) as (r bigint, s text, l text, x text, t double precision)
          ) with ordinality as o (r, s, l, x, t, n) order by n) l;
  perform kirby.hold_supervisor(p_supervisor_id);
end;
$$;
