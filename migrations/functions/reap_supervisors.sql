-- End the supervisors whose lease has run out; returns how many runs were lost with them.
create or replace function kirby.reap_supervisors()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id   uuid;
  v_lost integer := 0;
begin
  for v_id in
    select id from kirby.supervisor
     where ended_at is null and lease_until <= kirby.now()
     order by id for update skip locked
  loop
    v_lost := v_lost + kirby.end_supervisor(v_id, 'its supervisor stopped answering');
  end loop;
  return v_lost;
end;
$$;
