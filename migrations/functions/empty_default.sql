-- Give rows of a default partition (nobody opened a partition in time) the partitions they belong to; returns
-- how many. Nothing is deleted: the default partition is detached, copied, and replaced by an empty one,
-- with the log locked meanwhile; of more than p_most bytes only when it is asked for.
create or replace function kirby.empty_default(p_log text, p_most bigint default 268435456)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_unit    constant bigint := 10000000;
  v_default text := p_log || '_default';
  v_old     text := p_log || '_overflow';
  v_first   bigint;
  v_rows    bigint := 0;
  v_all     bigint;
begin
  if to_regclass('kirby.' || v_default) is null
     or pg_relation_size(('kirby.' || v_default)::regclass) not between 1 and p_most then
    return 0;
  end if;
  execute format('alter table kirby.%I detach partition kirby.%I', p_log, v_default);
  execute format('alter table kirby.%I rename to %I', v_default, v_old);
  execute format('create table kirby.%I partition of kirby.%I default', v_default, p_log);
  perform kirby.guard_log(p_log, v_default);

  for v_first in execute format('select distinct position / %s * %s from kirby.%I order by 1', v_unit, v_unit, v_old) loop
    v_rows := v_rows + kirby.open_partition(p_log, v_first, v_first + v_unit, v_old);
  end loop;
  execute format('select count(*) from kirby.%I', v_old) into v_all;
  if v_rows <> v_all then
    perform kirby.fail('KB008', format('%s of %s rows of %s were moved', v_rows, v_all, v_default));
  end if;
  execute format('drop table kirby.%I', v_old);
  return v_rows;
end;
$$;
