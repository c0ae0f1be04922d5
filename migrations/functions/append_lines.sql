-- Append lines of runs to the log, in the order given. Each element of the arrays is what was read
-- at one moment (p_at, seconds since 1970) from one stream: p_texts has its lines with a line feed
-- between them, so that a line costs a row and nothing else. Lines of runs that this supervisor no
-- longer has are refused (KB005).
create or replace function kirby.append_lines(
  p_supervisor_id uuid, p_runs bigint[], p_streams text[], p_levels text[], p_at double precision[], p_texts text[]
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into kirby.log_line (position, run_id, stream, level, text, at)
  select nextval('kirby.position'), l.run_id, l.stream, l.level, l.text, to_timestamp(l.at)
    from (select b.run_id, b.stream, b.level, t.text, b.at
            from unnest(p_runs, p_streams, p_levels, p_at, p_texts)
                 with ordinality as b (run_id, stream, level, at, texts, n),
                 string_to_table(b.texts, E'\n') with ordinality as t (text, m)
           order by b.n, t.m) l;
  perform kirby.hold_supervisor(p_supervisor_id);
end;
$$;
