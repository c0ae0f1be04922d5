-- Who is asking, to change something: as kirby.bearer, but a viewer's token is refused as well (KB003).
create or replace function kirby.principal(
  out environment_id smallint,
  out run_id bigint,
  out actor text
)
  language plpgsql
  stable
as $$
declare
  v_who record;
begin
  v_who := kirby.bearer();
  if v_who.role = 'viewer' then
    perform kirby.fail('KB003', format('%s is a viewer: it may only read', v_who.actor));
  end if;
  environment_id := v_who.environment_id;
  run_id := v_who.run_id;
  actor := v_who.actor;
end;
$$;
