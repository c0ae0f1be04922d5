-- A cached value that is younger than p_ttl seconds (NULL: of any age), or the right to compute it: the one call that is
-- told "compute" holds it until it lands (kirby.land) or p_lease seconds have passed; called again by the same holder it
-- is held for longer. Others get what there is, with its age; if they may not use it, they ask again.
-- KB001, KB003.
create or replace function kirby.fly(
  p_state text,
  p_key text,
  p_ttl double precision,
  p_holder text,
  p_lease double precision default 15,
  out value jsonb,
  out age double precision,
  out fresh boolean,
  out compute boolean
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_state integer;
begin
  v_who := kirby.principal();
  v_state := kirby.state_id(v_who.environment_id, p_state);
  for v_look in 1..2 loop  -- again when we have it: somebody may just have landed
    select e.value, extract(epoch from clock_timestamp() - e.updated_at)::float8 into value, age
      from kirby.state_entry e where e.state_id = v_state and e.key = p_key and e.op = 'set';
    fresh := found and (p_ttl is null or age < p_ttl);
    if fresh then
      if v_look = 2 then
        delete from kirby.flight f where f.state_id = v_state and f.key = p_key and f.holder = p_holder;
      end if;
      compute := false;
      return;
    end if;
    exit when v_look = 2;
    insert into kirby.flight as f (state_id, key, holder, until)
    values (v_state, p_key, p_holder, kirby.now() + p_lease * interval '1 second')
        on conflict (state_id, key) do update set holder = excluded.holder, until = excluded.until
     where f.until < kirby.now() or f.holder = excluded.holder;
    compute := found;
    exit when not compute;
  end loop;
end;
$$;
