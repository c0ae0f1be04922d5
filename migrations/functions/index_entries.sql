-- Bring the indexed columns of these keys of a state (NULL: all) in step with its entries. Called in the transaction
-- that changed them, with their locks. A key whose columns are as before costs no write.
create or replace function kirby.index_entries(p_state_id integer, p_keys text[])
  returns void
  language plpgsql
  volatile
as $$
declare
  v_names  text;
  v_values text;
  v_news   text;
begin
  select string_agg(quote_ident(c.name), ', ' order by c.n), string_agg(kirby.typed(c), ', ' order by c.n),
         string_agg('excluded.' || quote_ident(c.name), ', ' order by c.n)
    into v_names, v_values, v_news
    from kirby.state_column c where c.state_id = p_state_id and c.indexed;
  execute format(
    'insert into kirby.state_index_%s as i (key, %s)
     select e.key, %s from kirby.state_entry e
      where e.state_id = %s and e.op = ''set'' and ($1 is null or e.key = any ($1))
         on conflict (key) do update set (%s) = row(%s)
      where row(i.%s) is distinct from row(%s)',
    p_state_id, v_names, v_values, p_state_id, v_names, v_news, replace(v_names, ', ', ', i.'), v_news) using p_keys;
  if p_keys is not null then
    execute format(
      'delete from kirby.state_index_%s i using kirby.state_entry e
        where e.state_id = %s and e.key = i.key and e.op = ''delete'' and i.key = any ($1)',
      p_state_id, p_state_id) using p_keys;
  end if;
end;
$$;
