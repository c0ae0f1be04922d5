-- How many rows a partition of a log (other than that of messages) has, if all of them are past the log's
-- policy; NULL if one is not.
create or replace function kirby.expired_rows(p_log text, p_partition text)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_before timestamptz;
  v_kept   boolean;
  v_rows   bigint;
begin
  select kirby.now() - l.keep into v_before from kirby.log_retention l where l.log = p_log;
  if v_before is null then
    return null;
  end if;
  execute format('select exists (select from kirby.%I p where p.%I >= $1)', p_partition, kirby.time_of(p_log))
    into v_kept using v_before;
  if v_kept then
    return null;
  end if;
  execute format('select count(*) from kirby.%I', p_partition) into v_rows;
  return v_rows;
end;
$$;
