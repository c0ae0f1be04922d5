-- Hand queued runs that are due to a supervisor, oldest first, at most p_slots. A supervisor whose
-- lease has ended gets none (KB005): its runs are somebody else's by now.
create or replace function kirby.claim_runs(p_supervisor_id uuid, p_slots integer)
  returns setof bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run_id bigint;
begin
  perform from kirby.supervisor
    where id = p_supervisor_id and ended_at is null and lease_until > kirby.now()
    for share;
  if not found then
    perform kirby.fail('KB005', 'this supervisor lost its lease: its runs were given to others');
  end if;

  for v_run_id in
    select r.id from kirby.run r
     where r.status = 'queued' and r.not_before <= kirby.now()
     order by r.not_before, r.id
     limit p_slots
       for no key update skip locked
  loop
    perform kirby.record_run(v_run_id, 'run_claimed', jsonb_build_object('supervisor_id', p_supervisor_id));
    return next v_run_id;
  end loop;
end;
$$;
