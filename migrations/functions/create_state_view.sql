-- Make the views of a state: state_<environment>.<name> (latest) and …_history (every version).
create or replace function kirby.create_state_view(p_state_id integer)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_schema text;
  v_name   text;
begin
  select 'state_' || e.name, s.name into v_schema, v_name
    from kirby.state s join kirby.environment e on e.id = s.environment_id
   where s.id = p_state_id;

  execute format(
    'create or replace view %I.%I as
       select key, value, version, position, run_id, updated_at
         from kirby.state_entry where state_id = %s and op = ''set''',
    v_schema, v_name, p_state_id);
  execute format(
    'create or replace view %I.%I as
       select key, version, op, value, position, run_id, parents, recorded_at
         from kirby.state_mutation where state_id = %s',
    v_schema, v_name || '_history', p_state_id);
  execute format('grant select on %I.%I, %I.%I to kirby_server, kirby_auditor',
                 v_schema, v_name, v_schema, v_name || '_history');
end;
$$;
