-- Hand queued runs that are due to a supervisor, in their turn (kirby.turn), at most p_slots; those only whose
-- labels it has, and that may start now, and there (kirby.may_start). A draining supervisor gets none; one
-- whose lease has ended neither (KB005): its runs are somebody else's by now.
create or replace function kirby.claim_runs(p_supervisor_id uuid, p_slots integer)
  returns setof bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_supervisor kirby.supervisor;
  v_run        kirby.run;
  v_run_id     bigint;
  v_left       integer := p_slots;
begin
  select * into v_supervisor from kirby.supervisor
    where id = p_supervisor_id and ended_at is null and lease_until > kirby.now()
    for share;
  if not found then
    perform kirby.fail('KB005', 'this supervisor lost its lease: its runs were given to others');
  elsif v_supervisor.draining_at is not null or p_slots <= 0 then
    return;
  end if;

  for v_run_id in  -- not locked here: a loop fetches ahead, and would lock what it does not take
    select r.id from kirby.run r
     where r.status = 'queued' and r.not_before <= kirby.now() and r.labels <@ v_supervisor.labels
       and not (r.serial and exists (select from kirby.run b
                                      where b.deployment_id = r.deployment_id and b.status in ('starting', 'running')))
     order by r.turn, r.id
  loop
    select * into v_run from kirby.run
     where id = v_run_id and status = 'queued' for no key update skip locked;
    continue when not found or not kirby.may_start(v_run, v_supervisor);
    perform kirby.record_run(v_run_id, 'run_claimed', jsonb_build_object('supervisor_id', p_supervisor_id));
    return next v_run_id;
    v_left := v_left - 1;
    exit when v_left = 0;
  end loop;
end;
$$;
