-- Apply the changes of a transaction to states of an environment, keeping every version.
-- p_mutations: {"<state>": [{"k": key, "o": "set" | "delete" | "merge" | "check", "v": value, "e": version,
-- "p": [parent positions], "h": headers}, …], …}; at most one per key. "e" is the version that was read (0:
-- none): the change is refused with KB004 if the key has moved on since; without "e" it is unconditional.
-- "check" changes nothing: it guards a key that was only read. "merge" is applied to whatever the value is by
-- then (kirby.merged, "v" is what it takes), under the lock of the key: it never conflicts and loses nothing.
-- Returns the ids of the topics that states feed, for the notification. KB001: values that do not merge.
create or replace function kirby.append_mutations(
  p_environment_id smallint,
  p_run_id bigint,
  p_mutations jsonb
)
  returns integer[]
  language plpgsql
  volatile
as $$
declare
  v_name    text;
  v_changes jsonb;
  v_state   integer;
  v_moved   text;
  v_topics  integer[];
begin
  perform kirby.announce_states();
  for v_name, v_changes in select t.key, t.value from jsonb_each(p_mutations) t loop
    v_state := kirby.state_id(p_environment_id, v_name);

    if v_changes @> '[{"o": "merge"}]' then
      -- Keys that are new get an entry to be locked: who merges into the same one waits for us, and goes on from there.
      insert into kirby.state_entry (state_id, key, version, op, position, updated_at)
      select v_state, c.k, 0, 'delete', 0, clock_timestamp()
        from jsonb_to_recordset(v_changes) as c (k text, o text)
       where c.o = 'merge'
         and not exists (select from kirby.state_entry e where e.state_id = v_state and e.key = c.k)
       order by c.k collate "C"
          on conflict do nothing;
    end if;

    -- Everybody locks in the order of the keys, so two transactions cannot wait for each other.
    perform from kirby.state_entry e
      where e.state_id = v_state
        and e.key in (select c ->> 'k' from jsonb_array_elements(v_changes) c)
      order by e.key
      for no key update;

    select c.k into v_moved
      from jsonb_to_recordset(v_changes) as c (k text, e bigint)
      left join kirby.state_entry s on s.state_id = v_state and s.key = c.k
     where c.e <> coalesce(s.version, 0)
     limit 1;
    if found then
      perform kirby.fail('KB004', format('key %s of state %s was changed by somebody else since it was read', v_moved, v_name));
    end if;

    insert into kirby.state_mutation (position, state_id, key, version, op, value, run_id, parents, headers)
    select nextval('kirby.position'), v_state, c.k, coalesce(s.version, 0) + 1,
           case c.o when 'merge' then 'set' else c.o end,
           case c.o when 'set' then coalesce(c.v, 'null')
                    when 'merge' then kirby.merged(case s.op when 'set' then s.value end, c.v, c.k, v_name) end,
           p_run_id, c.p, c.h
      from jsonb_to_recordset(v_changes) as c (k text, o text, v jsonb, p bigint[], h jsonb)
      left join kirby.state_entry s on s.state_id = v_state and s.key = c.k
     where c.o <> 'check'
     order by c.k collate "C";

    if (select s.followed from kirby.state s where s.id = v_state) then  -- after the insert: kirby.open_feed
      v_topics := v_topics || kirby.follow_changes(v_state, p_run_id,
        array(select c.k from jsonb_to_recordset(v_changes) as c (k text, o text) where c.o <> 'check'));
    end if;
  end loop;
  return v_topics;
end;
$$;
