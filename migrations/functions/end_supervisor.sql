-- A supervisor is gone: what it had under way is lost, and run again if its deployment says so.
create or replace function kirby.end_supervisor(p_id uuid, p_reason text)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run_id bigint;
  v_lost   integer := 0;
begin
  update kirby.supervisor set ended_at = kirby.now() where id = p_id and ended_at is null;
  if not found then
    return 0;
  end if;
  for v_run_id in
    select id from kirby.run
     where supervisor_id = p_id and status in ('starting', 'running')
     order by id for update  -- one that ends at this moment is seen as ended
  loop
    perform kirby.record_run(v_run_id, 'run_lost', jsonb_build_object('reason', p_reason));
    v_lost := v_lost + 1;
  end loop;
  delete from kirby.lease where holder = p_id;
  return v_lost;
end;
$$;
