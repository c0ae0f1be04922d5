-- A value with changes merged into it, one after the other: [["increment", 1], ["maximum", {"a": 5}], …]. NULL: it has
-- none yet. increment, maximum and minimum take a number (for the value itself) or an object of numbers (for those
-- fields of it; the latter two texts as well); merge an object whose fields replace those of the value; append a list whose items
-- are put behind those of the value; add the same, but only those that it does not have yet.
-- KB001: the value is of another kind. p_key and p_state are for its words.
create or replace function kirby.merged(p_value jsonb, p_merges jsonb, p_key text, p_state text)
  returns jsonb
  language plpgsql
  immutable
as $$
declare
  v_value jsonb := p_value;
  v_op    text;
  v_given jsonb;
  v_field text;
  v_part  jsonb;
  v_kind  text;
begin
  for v_op, v_given in select m.merge ->> 0, m.merge -> 1 from jsonb_array_elements(p_merges) as m (merge) loop
    if v_op in ('increment', 'maximum', 'minimum') and jsonb_typeof(v_given) <> 'object' then
      v_value := kirby.merged_part(v_op, v_value, v_given, format('key %s of state %s', p_key, p_state));
      continue;
    end if;
    v_kind := case when v_op in ('append', 'add') then 'array' else 'object' end;
    if jsonb_typeof(v_value) <> v_kind then
      perform kirby.fail('KB001', format('key %s of state %s is of kind %s: %s needs an %s', p_key, p_state,
                                         jsonb_typeof(v_value), v_op, v_kind));
    end if;
    if v_op = 'merge' then
      v_value := coalesce(v_value, '{}') || v_given;
    elsif v_op = 'append' then
      v_value := coalesce(v_value, '[]') || v_given;
    elsif v_op = 'add' then
      v_value := coalesce(v_value, '[]');
      for v_part in select a.item from jsonb_array_elements(v_given) as a (item) loop
        if not exists (select from jsonb_array_elements(v_value) as h (item) where h.item = v_part) then
          v_value := v_value || jsonb_build_array(v_part);
        end if;
      end loop;
    elsif v_op in ('increment', 'maximum', 'minimum') then
      v_value := coalesce(v_value, '{}');
      for v_field, v_part in select f.key, f.value from jsonb_each(v_given) f loop
        v_value := v_value || jsonb_build_object(v_field, kirby.merged_part(v_op, v_value -> v_field, v_part,
          format('%s of key %s of state %s', v_field, p_key, p_state)));
      end loop;
    else
      perform kirby.fail('KB001', format('%L is not a way to merge', v_op));
    end if;
  end loop;
  return v_value;
end;
$$;
