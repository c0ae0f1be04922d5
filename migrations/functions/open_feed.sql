-- From now on every change of a state is also a message of topic state.<name>, in the transaction of the change;
-- what the state holds now comes first. Made with the state at its first use; returns the topic's id.
--
-- Nothing is missing and nothing comes twice: who changes a state asks whether it is fed after the trigger has written
-- to state_entry. Either that was before our lock: then we wait for its commit, and publish what it wrote. Or it
-- waits for us, and finds the feed open. 55P03: somebody has had the states locked for seconds; try again. KB001.
create or replace function kirby.open_feed(p_environment_id smallint, p_name text)
  returns integer
  language plpgsql
  volatile
  set lock_timeout = '5s'
as $$
declare
  v_state integer := kirby.state_id(p_environment_id, p_name);
  v_topic integer := kirby.topic_id(p_environment_id, 'state.' || p_name);
begin
  if (select s.feed from kirby.state s where s.id = v_state) then
    return v_topic;
  end if;
  lock table kirby.state_entry in share row exclusive mode;
  update kirby.state s set feed = true where s.id = v_state and not s.feed;
  if found then
    perform kirby.feed_changes(v_state, null, array(
      select e.key from kirby.state_entry e where e.state_id = v_state and e.op = 'set'));
  end if;
  return v_topic;
end;
$$;
