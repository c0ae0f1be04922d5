-- The id of a state of this environment, made at its first use together with its view
-- state_<environment>.<name>. KB001: not a name of a state.
create or replace function kirby.state_id(p_environment_id smallint, p_name text)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_id integer;
begin
  select id into v_id from kirby.state where environment_id = p_environment_id and name = p_name;
  if found then
    return v_id;
  end if;

  if p_name is null or p_name !~ '^[a-z][a-z0-9_]{0,49}$' then
    perform kirby.fail('KB001', format('%L is not a name for a state: small letters, digits and underscores, at most 50 (it becomes an SQL view)', p_name));
  elsif p_name like '%\_history' then
    perform kirby.fail('KB001', format('%s is not a name for a state: that view has the versions of state %s', p_name, left(p_name, -8)));
  end if;
  insert into kirby.state (environment_id, name) values (p_environment_id, p_name)
      on conflict do nothing
   returning id into v_id;
  if not found then  -- made by somebody else, who has committed by now
    select id into v_id from kirby.state where environment_id = p_environment_id and name = p_name;
    return v_id;
  end if;
  perform kirby.create_state_view(v_id);
  return v_id;
end;
$$;
