-- The expression that takes a column of a state out of its value, as SQL text. What does not fit is NULL.
create or replace function kirby.typed(p_column kirby.state_column)
  returns text
  language sql
  stable
as $$
  select format(case p_column.type
                  when 'integer' then 'kirby.typed_integer(value #> %L)'
                  when 'number'  then 'kirby.typed_number(value #> %L)'
                  when 'text'    then 'kirby.typed_text(value #> %L)'
                  when 'boolean' then 'kirby.typed_boolean(value #> %L)'
                  when 'time'    then 'kirby.typed_time(value #> %L)'
                  when 'date'    then '(kirby.typed_time(value #> %L) at time zone ''UTC'')::date'
                  else 'value #> %L'
                end, p_column.path);
$$;
