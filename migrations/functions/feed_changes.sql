-- Publish the latest entries of these keys to the topic that the state feeds; returns its id. Called in the
-- transaction that changed them, whose locks on the keys keep each key's messages in the order of its versions.
-- A message has the key, {"key", "op", "version", "value"}, the headers of the mutation, and it as its parent.
create or replace function kirby.feed_changes(p_state_id integer, p_run_id bigint, p_keys text[])
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_state  kirby.state;
  v_items  jsonb;
begin
  select * into v_state from kirby.state s where s.id = p_state_id;
  for v_items in
    select jsonb_agg(jsonb_build_object(
             'k', c.key, 'p', jsonb_build_array(c.position), 'h', c.headers,
             'v', jsonb_build_object('key', c.key, 'op', c.op, 'version', c.version, 'value', c.value))
           order by c.key)
      from (select e.key, e.op, e.version, e.value, e.position, m.headers,
                   row_number() over (order by e.key) / 1000 as piece
              from kirby.state_entry e
              join kirby.state_mutation m on m.state_id = e.state_id and m.key = e.key and m.position = e.position
             where e.state_id = p_state_id and e.key = any (p_keys)) c
     group by c.piece order by c.piece
  loop
    perform kirby.append_messages(v_state.environment_id, p_run_id, jsonb_build_object('state.' || v_state.name, v_items));
  end loop;
  return kirby.topic_id(v_state.environment_id, 'state.' || v_state.name);
end;
$$;
