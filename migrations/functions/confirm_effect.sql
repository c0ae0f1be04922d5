-- It happened: never again. Asked again, and after another attempt of it began: it stays confirmed. KB002, KB003.
create or replace function kirby.confirm_effect(p_effect_id bigint)
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
  update kirby.effect e set status = 'confirmed', confirmed_at = coalesce(e.confirmed_at, kirby.now())
   where e.id = p_effect_id and e.environment_id = v_who.environment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no effect %s in this environment', p_effect_id));
  end if;
end;
$$;
