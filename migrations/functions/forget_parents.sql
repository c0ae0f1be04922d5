-- Forget what the index by parents has of partitions that were dropped. Returns how many stretches.
create or replace function kirby.forget_parents()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_gone integer;
begin
  delete from kirby.parent_index x
   where x.kind = 'message' and x.position < (select min(p.first) from kirby.partitions('message') p);
  get diagnostics v_gone = row_count;
  return v_gone;
end;
$$;
