-- The trees of rules for a member of what these lead to: of each those for its name, then those for any.
create or replace function kirby.rules_below(p_rules jsonb[], p_name text)
  returns jsonb[]
  language plpgsql
  immutable
as $$
declare
  v_tree  jsonb;
  v_found jsonb[] := '{}';
begin
  foreach v_tree in array p_rules loop
    v_tree := v_tree -> 'in';
    if v_tree ? p_name then
      v_found := v_found || (v_tree -> p_name);
    end if;
    if v_tree ? '*' and p_name <> '*' then
      v_found := v_found || (v_tree -> '*');
    end if;
  end loop;
  return v_found;
end;
$$;
