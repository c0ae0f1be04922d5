-- Open the partition of a log for positions from p_first to below p_end, named after the first one. Rows of
-- p_from, a table that is no part of the log any more, are taken over; none of its triggers fire.
-- Attaching a table, rather than creating a partition, lets others read and write the log meanwhile.
create or replace function kirby.open_partition(
  p_log text,
  p_first bigint,
  p_end bigint,
  p_from text default null
)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_name text := p_log || '_' || p_first / 10000000;
  v_rows bigint := 0;
begin
  execute format('create table kirby.%I (like kirby.%I including defaults including constraints)', v_name, p_log);
  if p_from is not null then
    execute format('insert into kirby.%I select * from kirby.%I where position >= %s and position < %s',
                   v_name, p_from, p_first, p_end);
    get diagnostics v_rows = row_count;
  end if;
  execute format('alter table kirby.%I attach partition kirby.%I for values from (%s) to (%s)',
                 p_log, v_name, p_first, p_end);
  perform kirby.guard_log(p_log, v_name);
  return v_rows;
end;
$$;
