-- Give a state's views these columns, in their order, in the place of those they have; some with an index.
-- p_columns: [{"name", "type", "path": ["a", "b"], "index": true}, …]; the path is the name if there is none. Audited.
--
-- Indexed columns lie in a table of their own, kirby.state_index_<id>, which whoever changes the state keeps in step
-- (kirby.index_entries): an index on state_entry would end the updates in place (HOT) of every state there is. Nobody
-- changes states while it is filled. KB001: a bad column. KB008: views of others. 55P03: the states are locked.
create or replace function kirby.set_columns(p_state_id integer, p_columns jsonb, p_actor text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '5s'
as $$
declare
  v_object text;
  v_before jsonb;
  v_bad    text;
  v_column record;
begin
  perform from kirby.state s where s.id = p_state_id for no key update;
  select min(c.name) into v_bad
    from jsonb_to_recordset(p_columns) as c (name text, type text)
   where c.name !~ '^[a-z][a-z0-9_]{0,49}$'
      or c.name in ('key', 'value', 'version', 'position', 'run_id', 'updated_at', 'op', 'parents', 'recorded_at', 'headers');
  if v_bad is not null then
    perform kirby.fail('KB001', format('%s is not a name for a column: small letters, digits and underscores, and none that the views have', v_bad));
  end if;
  select c.type into v_bad from jsonb_to_recordset(p_columns) as c (type text)
   where c.type is null or c.type not in ('integer', 'number', 'text', 'boolean', 'time', 'date', 'json') limit 1;
  if found then
    perform kirby.fail('KB001', format('%s is not a type of a column: integer, number, text, boolean, time, date or json', v_bad));
  end if;
  select c.name into v_bad from jsonb_to_recordset(p_columns) as c (name text) group by c.name having count(*) > 1 limit 1;
  if found then
    perform kirby.fail('KB001', format('column %s is there twice', v_bad));
  end if;
  select c.name into v_bad from jsonb_to_recordset(p_columns) as c (name text, type text, index boolean)
   where c.index and c.type = 'json' limit 1;
  if found then
    perform kirby.fail('KB001', format('column %s is JSON: it cannot have an index', v_bad));
  end if;

  select coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'type', c.type, 'path', c.path, 'index', c.indexed) order by c.n), '[]')
    into v_before from kirby.state_column c where c.state_id = p_state_id;
  delete from kirby.state_column c where c.state_id = p_state_id;
  insert into kirby.state_column (state_id, name, type, path, indexed, n)
  select p_state_id, c.name, c.type, coalesce(c.path, array[c.name]), coalesce(c.index, false), c.n
    from rows from (jsonb_to_recordset(p_columns) as (name text, type text, path text[], index boolean))
         with ordinality as c (name, type, path, index, n);
  update kirby.state s
     set indexed = exists (select from kirby.state_column c where c.state_id = s.id and c.indexed)
   where s.id = p_state_id;
  perform kirby.create_state_index(p_state_id);

  select format('state/%s/%s', v.name, s.name) into v_object
    from kirby.state s join kirby.environment v on v.id = s.environment_id where s.id = p_state_id;
  perform kirby.audit(p_actor, 'state_columns_set', v_object, p_before => v_before, p_after => p_columns);
end;
$$;
