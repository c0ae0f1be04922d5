-- When the oldest row of a log was recorded, as far as that is cheap to say: of messages and mutations, the start
-- of what the index by time has; of the lines of runs, that of the oldest run; of the others the first by position.
create or replace function kirby.oldest_in(p_log text, out at timestamptz)
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_log = 'message' then
    select i.earliest into at from kirby.time_index i
     where i.position >= (select min(p.first) from kirby.partitions('message') p)
     order by i.position limit 1;
  elsif p_log = 'log_line' then
    select l.at into at from kirby.log_line l order by l.run_id, l.position limit 1;
  elsif p_log in ('job_event', 'secret_access', 'audit_event') then
    execute format('select l.recorded_at from kirby.%I l order by l.position limit 1', p_log) into at;
  end if;
end;
$$;
