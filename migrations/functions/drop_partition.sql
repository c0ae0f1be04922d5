-- Drop a partition of a log, if everything in it is past its policy and nothing can be written to it any
-- more; returns whether it was dropped. Audited. Takes a lock on the whole log, for which it waits 0.2 s
-- at most (55P03 then: try again later), so that nobody queues behind a long query. KB002: no such
-- partition. KB008: it holds messages that are kept.
create or replace function kirby.drop_partition(p_log text, p_partition text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms'
as $$
declare
  v_part record;
  v_rows bigint;
begin
  select * into v_part from kirby.partitions(p_log) p where p.name = p_partition and p.first is not null;
  if not found then
    perform kirby.fail('KB002', format('log %s has no partition %s', p_log, p_partition));
  end if;

  if p_log = 'message' then
    if v_part.last > kirby.horizon_of_all() then
      return false;
    end if;
    v_rows := kirby.pass_partition(p_partition, v_part.first, v_part.last);
  else
    v_rows := kirby.expired_rows(p_log, p_partition);
    if v_rows is null or not coalesce(v_part.last < (select min(p.position) from kirby.pace p), false) then
      return false;
    end if;
  end if;

  execute format('drop table kirby.%I', p_partition);
  perform kirby.audit('kirby', 'partition_dropped', 'log/' || p_log, p_before => jsonb_build_object(
    'partition', p_partition, 'first', v_part.first, 'last', v_part.last, 'rows', v_rows));
  return true;
end;
$$;
