-- The id of a topic of this environment, made at its first use; one of tasks (task.…, not its results)
-- has bands for three priorities. KB001: not a name of a topic.
create or replace function kirby.topic_id(p_environment_id smallint, p_name text)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_id    integer;
  v_tasks boolean := p_name like 'task.%' and p_name not like '%.results';
begin
  select id into v_id from kirby.topic where environment_id = p_environment_id and name = p_name;
  if found then
    return v_id;
  end if;

  if p_name is null or p_name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$' then
    perform kirby.fail('KB001', format('%L is not a name for a topic: letters, digits, dots, dashes and underscores, at most 200', p_name));
  end if;
  insert into kirby.topic (environment_id, name, lanes, bands)
  values (p_environment_id, p_name, case when v_tasks then 24 else 8 end, case when v_tasks then 3 else 1 end)
      on conflict do nothing;
  select id into v_id from kirby.topic where environment_id = p_environment_id and name = p_name;
  return v_id;
end;
$$;
