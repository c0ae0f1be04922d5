-- What leaves of a part of a document; NULL: nothing. p_rules: the trees of rules that lead here, the most
-- exact first (kirby.mask); p_rule: what holds where none of them has a rule of its own, until one below has.
--   keep · drop · hash (a text of 32 digits) · fake (kirby.fake)
-- Hash and fake go into objects and lists; the names of fields stay. A null stays null.
-- A function per part, so it looks at no more of the document than rules name.
create or replace function kirby.mask_part(p_document jsonb, p_rules jsonb[], p_rule text, p_salt bytea)
  returns jsonb
  language plpgsql
  immutable
as $$
declare
  v_rule   text;
  v_all    boolean := false;  -- there is a rule for members of any name
  v_names  text[]  := '{}';
  v_tree   jsonb;
  v_found  jsonb;
  v_part   jsonb;
  v_name   text;
begin
  foreach v_tree in array p_rules loop
    v_rule := coalesce(v_rule, v_tree ->> 'rule');
    if v_tree ? 'in' then
      v_all := v_all or v_tree -> 'in' ? '*';
      v_names := v_names || array(select jsonb_object_keys(v_tree -> 'in'));
    end if;
  end loop;
  v_rule := coalesce(v_rule, p_rule);
  if v_rule = 'keep' and v_names = '{}' then
    return p_document;
  elsif v_rule = 'drop' and v_names = '{}' then
    return null;
  end if;

  case jsonb_typeof(p_document)
  when 'object' then
    if v_all or v_rule in ('hash', 'fake') then
      v_names := array(select jsonb_object_keys(p_document));
    end if;
    v_found := case when v_rule = 'drop' then '{}' else p_document end;
    foreach v_name in array v_names loop
      if p_document ? v_name then
        v_part := kirby.mask_part(p_document -> v_name, kirby.rules_below(p_rules, v_name), v_rule, p_salt);
        v_found := case when v_part is null then v_found - v_name else v_found || jsonb_build_object(v_name, v_part) end;
      end if;
    end loop;
    return case when v_rule <> 'drop' or v_found <> '{}' then v_found end;
  when 'array' then
    select jsonb_agg(e.masked order by e.n) into v_found
      from (select m.n, kirby.mask_part(m.value, kirby.rules_below(p_rules, (m.n - 1)::text), v_rule, p_salt) as masked
              from jsonb_array_elements(p_document) with ordinality as m (value, n) offset 0) e
     where e.masked is not null;
    return coalesce(v_found, case when v_rule <> 'drop' then '[]'::jsonb end);
  when 'null' then
    return case when v_rule <> 'drop' then p_document end;
  else
    return case v_rule
      when 'keep' then p_document
      when 'hash' then to_jsonb(substr(encode(kirby.hash_of(p_document #>> '{}', p_salt), 'hex'), 1, 32))
      when 'fake' then kirby.fake(p_document, p_salt)
    end;
  end case;
end;
$$;
