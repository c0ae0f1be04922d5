-- Make the table with the indexed columns of a state anew, or drop it, and the views that read it. Whoever changes the
-- state asks whether it is followed after its entries are written: nothing is missed (kirby.open_feed has the proof).
create or replace function kirby.create_state_index(p_state_id integer)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_table  text := 'kirby.state_index_' || p_state_id;
  v_column kirby.state_column;
begin
  if to_regclass(v_table) is not null then
    lock table kirby.state_entry in share row exclusive mode;
    execute format('alter table %s rename to state_index_%s_old', v_table, p_state_id);
  end if;
  if (select s.indexed from kirby.state s where s.id = p_state_id) then
    lock table kirby.state_entry in share row exclusive mode;
    execute format('create table %s (key text collate "C" not null)', v_table);
    for v_column in
      select * from kirby.state_column c where c.state_id = p_state_id and c.indexed order by c.n
    loop
      execute format('alter table %s add column %I %s', v_table, v_column.name,
        case v_column.type when 'integer' then 'bigint' when 'number' then 'numeric' when 'text' then 'text collate "C"'
                           when 'boolean' then 'boolean' when 'time' then 'timestamptz' else 'date' end);
    end loop;
    execute format('alter table %s add primary key (key)', v_table);
    perform kirby.index_entries(p_state_id, null);
    for v_column in
      select * from kirby.state_column c where c.state_id = p_state_id and c.indexed order by c.n
    loop
      execute format('create index on %s (%I)', v_table, v_column.name);
    end loop;
    execute format('grant select on %s to kirby_server', v_table);
  end if;
  perform kirby.create_state_view(p_state_id);
  execute format('drop table if exists %s_old', v_table);
end;
$$;
