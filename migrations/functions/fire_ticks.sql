-- Queue the runs of the ticks that are due; returns how many. Each deployment by itself (kirby.fire_deployment): its
-- lock comes first, as in planning, so neither waits for the other the wrong way round. After p_budget the rest is left
-- to the next call: however many are due at once, what was decided is committed.
create or replace function kirby.fire_ticks(p_budget interval default '2 s')
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_until timestamptz := clock_timestamp() + p_budget;
  v_id    integer;
  v_fired integer := 0;
begin
  for v_id in
    select t.deployment_id from kirby.tick t
     where t.status = 'planned' and coalesce(t.fire_at, t.at) <= (select kirby.now())
     group by t.deployment_id
     order by min(coalesce(t.fire_at, t.at)), t.deployment_id
  loop
    begin
      v_fired := v_fired + kirby.fire_deployment(v_id);
    exception when others then  -- what is wrong with one holds up no other
      raise warning 'deployment % cannot be fired: %', v_id, sqlerrm;
    end;
    exit when clock_timestamp() >= v_until;
  end loop;
  return v_fired;
end;
$$;
