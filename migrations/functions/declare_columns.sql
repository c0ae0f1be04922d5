-- Give a state of the caller's environment columns, as kirby.set_columns; nothing happens if it has these already.
-- What kirby.state(name, columns=…) calls once in each process. KB001, KB003, KB008.
create or replace function kirby.declare_columns(p_state text, p_columns jsonb)
  returns void
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
  if (select jsonb_agg(jsonb_build_object('name', c.name, 'type', c.type, 'path', c.path, 'index', c.indexed) order by c.n)
        from kirby.state_column c where c.state_id = v_state) is distinct from p_columns then
    perform kirby.set_columns(v_state, p_columns, v_who.actor);
  end if;
end;
$$;
