-- Indexed columns of states that are not what the entries have.
create or replace function kirby.verify_state_indexes()
  returns table (key text, expected jsonb, found jsonb)
  language plpgsql
  stable
as $$
declare
  v_state record;
begin
  for v_state in
    select s.id, v.name as environment, s.name, string_agg(format('%L, %s', c.name, kirby.typed(c)), ', ' order by c.n) as columns
      from kirby.state s
      join kirby.environment v on v.id = s.environment_id
      join kirby.state_column c on c.state_id = s.id and c.indexed
     group by s.id, v.name, s.name
  loop
    return query execute format(
      'select %L || coalesce(t.key, f.key), t.columns, f.columns
         from (select e.key, jsonb_build_object(%s) as columns
                 from kirby.state_entry e where e.state_id = %s and e.op = ''set'') t
         full join (select i.key, to_jsonb(i) - ''key'' as columns from kirby.state_index_%s i) f on f.key = t.key
        where t.columns is distinct from f.columns',
      v_state.environment || '/' || v_state.name || '/', v_state.columns, v_state.id, v_state.id);
  end loop;
end;
$$;
