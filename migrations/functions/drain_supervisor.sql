-- Give a supervisor no more runs (p_drain), or runs again (not p_drain). Daemons' replicas move away one by one
-- (kirby.balance_daemons), other runs end by themselves; p_stop: then it ends. Returns whether that changed
-- anything. KB002: no such supervisor, or it has ended.
create or replace function kirby.drain_supervisor(p_id uuid, p_drain boolean, p_stop boolean default false)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before kirby.supervisor;
begin
  select * into v_before from kirby.supervisor where id = p_id and ended_at is null for update;
  if not found then
    perform kirby.fail('KB002', format('there is no supervisor %s any more', p_id));
  end if;
  update kirby.supervisor
     set draining_at = case when p_drain then coalesce(draining_at, kirby.now()) end, stopping = p_drain and p_stop
   where id = p_id;
  return (v_before.draining_at is not null, v_before.stopping) is distinct from (p_drain, p_drain and p_stop);
end;
$$;
