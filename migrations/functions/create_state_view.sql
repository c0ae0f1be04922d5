-- Make the views of a state: state_<environment>.<name> (latest) and …_history (every version), with its columns
-- (kirby.set_columns) behind those that all states have. Existing ones are made anew if they have other columns.
-- KB008: somebody's own views are built on them.
create or replace function kirby.create_state_view(p_state_id integer)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_schema  text;
  v_name    text;
  v_indexed boolean;
  v_columns text;
  v_typed   text;
  v_latest  text;
  v_history text;
begin
  select 'state_' || e.name, s.name, s.indexed into v_schema, v_name, v_indexed
    from kirby.state s join kirby.environment e on e.id = s.environment_id
   where s.id = p_state_id;
  select coalesce(string_agg(case when c.indexed then format(', i.%I', c.name)
                                  else format(', %s as %I', kirby.typed(c), c.name) end, '' order by c.n), ''),
         coalesce(string_agg(format(', %s as %I', kirby.typed(c), c.name), '' order by c.n), '')
    into v_columns, v_typed
    from kirby.state_column c where c.state_id = p_state_id;

  v_latest := format(
    'create or replace view %I.%I as
       select e.key, e.value, e.version, e.position, e.run_id, e.updated_at%s
         from kirby.state_entry e%s where e.state_id = %s and e.op = ''set''',
    v_schema, v_name, v_columns,
    case when v_indexed then format(' join kirby.state_index_%s i on i.key = e.key', p_state_id) else '' end, p_state_id);
  v_history := format(
    'create or replace view %I.%I as
       select key, version, op, value, position, run_id, parents, recorded_at, headers%s
         from kirby.state_mutation where state_id = %s',
    v_schema, v_name || '_history', v_typed, p_state_id);
  begin
    execute v_latest;
    execute v_history;
  exception when invalid_table_definition then  -- other columns than before: not only some more
    execute format('drop view %I.%I, %I.%I', v_schema, v_name, v_schema, v_name || '_history');
    execute v_latest;
    execute v_history;
  end;
  execute format('grant select on %I.%I, %I.%I to kirby_server, kirby_auditor',
                 v_schema, v_name, v_schema, v_name || '_history');
exception when dependent_objects_still_exist then
  perform kirby.fail('KB008', format('other views are built on %s.%s or %s_history: drop them first', v_schema, v_name, v_name));
end;
$$;

-- Views of before headers were shown get them.
do $$
begin
  perform kirby.create_state_view(s.id)
     from kirby.state s
     join kirby.environment e on e.id = s.environment_id
    where not exists (select from pg_attribute a
                       where a.attrelid = to_regclass(format('%I.%I', 'state_' || e.name, s.name || '_history'))
                         and a.attname = 'headers');
end;
$$;
