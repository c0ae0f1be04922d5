-- What was to be computed is, or will not be: the next one may. See kirby.fly. KB003.
create or replace function kirby.land(p_state text, p_key text, p_holder text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
begin
  v_who := kirby.principal();
  delete from kirby.flight f
   using kirby.state s
   where s.environment_id = v_who.environment_id and s.name = p_state
     and f.state_id = s.id and f.key = p_key and f.holder = p_holder;
end;
$$;
