-- Add an environment, with the schema of its state views. KB001: a bad name. KB006: it exists.
create or replace function kirby.add_environment(p_name text, p_actor text)
  returns smallint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id smallint;
begin
  if p_name is null or p_name !~ '^[a-z][a-z0-9_]{0,31}$' then
    perform kirby.fail('KB001', format('%L is not a name for an environment: small letters, digits and underscores, at most 32', p_name));
  end if;
  insert into kirby.environment (name) values (p_name) on conflict do nothing returning id into v_id;
  if not found then
    perform kirby.fail('KB006', format('environment %s exists already', p_name));
  end if;

  execute format('create schema if not exists %I', 'state_' || p_name);
  execute format('grant usage on schema %I to kirby_server, kirby_auditor', 'state_' || p_name);
  perform kirby.audit(p_actor, 'environment_added', 'environment/' || p_name);
  return v_id;
end;
$$;
