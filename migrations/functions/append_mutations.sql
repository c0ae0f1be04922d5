-- Apply the changes of a transaction to states of an environment, keeping every version.
-- p_mutations: {"<state>": [{"k": key, "o": "set" | "delete" | "check", "v": value, "e": version,
-- "p": [parent positions]}, …], …}; at most one per key. "e" is the version that was read (0: none):
-- the change is refused with KB004 if the key has moved on since; without "e" it is unconditional.
-- "check" changes nothing: it guards a key that was only read.
create or replace function kirby.append_mutations(
  p_environment_id smallint,
  p_run_id bigint,
  p_mutations jsonb
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_name    text;
  v_changes jsonb;
  v_state   integer;
  v_moved   text;
begin
  for v_name, v_changes in select t.key, t.value from jsonb_each(p_mutations) t loop
    v_state := kirby.state_id(p_environment_id, v_name);

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

    insert into kirby.state_mutation (position, state_id, key, version, op, value, run_id, parents)
    select nextval('kirby.position'), v_state, c.k, coalesce(s.version, 0) + 1, c.o,
           case c.o when 'set' then coalesce(c.v, 'null') end, p_run_id, c.p
      from jsonb_to_recordset(v_changes) as c (k text, o text, v jsonb, p bigint[])
      left join kirby.state_entry s on s.state_id = v_state and s.key = c.k
     where c.o <> 'check'
     order by c.k collate "C";
  end loop;
end;
$$;
