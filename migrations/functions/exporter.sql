-- Who asks for an export: a developer's token or an admin's; or the server, for p_actor. KB003 otherwise.
create or replace function kirby.exporter(
  p_actor text,
  out environment_id smallint,
  out environment text,
  out actor text
)
  language plpgsql
  stable
as $$
declare
  v_who record;
begin
  v_who := kirby.bearer();
  if nullif(current_setting('kirby.token', true), '') is null then
    actor := coalesce(p_actor, v_who.actor);
  elsif v_who.role in ('developer', 'admin') then
    actor := v_who.actor;
  else
    perform kirby.fail('KB003', format('%s may not export: this needs the role developer', v_who.actor));
  end if;
  select e.id, e.name into environment_id, environment from kirby.environment e where e.id = v_who.environment_id;
end;
$$;
