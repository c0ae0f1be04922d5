-- What is to be done beside, when these keys of a state were changed: its indexed columns, and its feed. Returns the
-- topic that was published to, if any. To be called after the entries were written, if the state is followed.
create or replace function kirby.follow_changes(p_state_id integer, p_run_id bigint, p_keys text[])
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_state kirby.state;
begin
  select * into v_state from kirby.state s where s.id = p_state_id;
  if v_state.indexed then
    perform kirby.index_entries(p_state_id, p_keys);
  end if;
  if v_state.feed then
    return kirby.feed_changes(p_state_id, p_run_id, p_keys);
  end if;
  return null;
end;
$$;
