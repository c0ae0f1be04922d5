-- A number (or text) with another one merged into it: their sum, the greater or the lesser of them. NULL: there is
-- none yet. Texts are compared by their code points. KB001: they are not of one kind; p_what says of what.
create or replace function kirby.merged_part(p_op text, p_value jsonb, p_given jsonb, p_what text)
  returns jsonb
  language plpgsql
  immutable
as $$
declare
  v_kind text := jsonb_typeof(p_given);
begin
  if v_kind <> 'number' and (v_kind <> 'string' or p_op = 'increment') then
    perform kirby.fail('KB001', format('%s by %s: that is no number', p_op, left(p_given::text, 60)));
  elsif p_value is null then
    return p_given;
  elsif jsonb_typeof(p_value) <> v_kind then
    perform kirby.fail('KB001', format('%s is %s, not a %s: %s needs one', p_what, left(p_value::text, 60), v_kind, p_op));
  end if;
  if p_op = 'increment' then
    return to_jsonb(p_value::numeric + p_given::numeric);
  elsif v_kind = 'number' then
    return case when (p_value::numeric < p_given::numeric) = (p_op = 'maximum') then p_given else p_value end;
  end if;
  return case when ((p_value #>> '{}') collate "C" < (p_given #>> '{}') collate "C") = (p_op = 'maximum')
              then p_given else p_value end;
end;
$$;
