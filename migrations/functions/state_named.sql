-- The id of a state by the names of its environment and its own. KB002: there is none.
create or replace function kirby.state_named(p_environment text, p_name text)
  returns integer
  language plpgsql
  stable
as $$
declare
  v_id integer;
begin
  select s.id into v_id
    from kirby.state s join kirby.environment e on e.id = s.environment_id
   where e.name = p_environment and s.name = p_name;
  if not found then
    perform kirby.fail('KB002', format('there is no state %s in environment %s', p_name, p_environment));
  end if;
  return v_id;
end;
$$;
