-- Set keys of states back, each to what it was just before a position, by new mutations whose headers say so; a key
-- that was not there is deleted. What each had is noted (kirby.rewind_state).
create or replace function kirby.set_keys_back(
  p_rewind kirby.rewind,
  p_states integer[],
  p_keys text[],
  p_positions bigint[]
)
  returns void
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_mutations jsonb;
begin
  perform from kirby.state_entry e
    join unnest(p_states, p_keys) as c (state_id, key) on c.state_id = e.state_id and c.key = e.key
    order by e.state_id, e.key
      for no key update of e;
  insert into kirby.rewind_state (rewind_id, state_id, key, version)
  select p_rewind.id, e.state_id, e.key, e.version
    from unnest(p_states, p_keys) as c (state_id, key)
    join kirby.state_entry e on e.state_id = c.state_id and e.key = c.key
      on conflict do nothing;

  select jsonb_object_agg(n.name, n.changes) into v_mutations
    from (select s.name, jsonb_agg(jsonb_build_object(
                   'k', c.key, 'o', coalesce(b.op, 'delete'), 'v', b.value,
                   'h', jsonb_build_object('restored', jsonb_build_object(
                          'rewind', p_rewind.id, 'version', coalesce(b.version, 0))))) as changes
            from unnest(p_states, p_keys, p_positions) as c (state_id, key, position)
            join kirby.state s on s.id = c.state_id
            join kirby.state_entry e on e.state_id = c.state_id and e.key = c.key
            left join lateral (
                 select m.op, m.value, m.version from kirby.state_mutation m
                  where m.state_id = c.state_id and m.key = c.key and m.position < c.position
                  order by m.position desc limit 1) b on true
           where e.version is distinct from b.version
             and (e.op <> 'delete' or coalesce(b.op, 'delete') <> 'delete')
           group by s.name) n;
  if v_mutations is not null then
    perform pg_notify('kirby_topic_' || f.topic_id, '')
       from unnest(kirby.append_mutations(p_rewind.environment_id, null, v_mutations)) as f (topic_id);
  end if;
end;
$$;
