-- Set keys of a state to what was exported: p_lines is [{"key", "value"}, …]. A key that has this value already
-- gets no new version. Returns how many got one. KB001: a key that is null. KB003: it comes back to where it was exported.
create or replace function kirby.import_entries(p_state text, p_lines jsonb, p_origin jsonb)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who     record;
  v_headers jsonb := jsonb_build_object('origin', p_origin);
  v_changes jsonb;
begin
  v_who := kirby.principal();
  perform kirby.checked_origin(v_headers, v_who.environment_id);
  if jsonb_path_exists(p_lines, '$[*] ? (!(@.key.type() == "string"))') then
    perform kirby.fail('KB001', format('an entry of state %s has no key', p_state));
  end if;
  select jsonb_agg(jsonb_build_object('k', l.key, 'o', 'set', 'v', coalesce(l.value, 'null'), 'h', v_headers)) into v_changes
    from jsonb_to_recordset(p_lines) as l (key text, value jsonb)
    left join kirby.state s on s.environment_id = v_who.environment_id and s.name = p_state
    left join kirby.state_entry e on e.state_id = s.id and e.key = l.key and e.op = 'set'
   where e.value is distinct from coalesce(l.value, 'null');
  if v_changes is null then
    return 0;
  end if;
  perform kirby.append_mutations(v_who.environment_id, v_who.run_id, jsonb_build_object(p_state, v_changes));
  return jsonb_array_length(v_changes);
end;
$$;
