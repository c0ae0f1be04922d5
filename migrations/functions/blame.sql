-- For each part of a key's value (each leaf of it; an empty list or object is one) the mutation that made it what it
-- is: the oldest one since which that part had this value without a break, at its position in the value.
-- Looks at the newest p_most versions: what was so in all of them is not exact, it is at least as old. Nor is what was
-- so across versions that compaction removed: one of those may have made it so.
-- The job and the release are those of the handler (headers.via), else of the run. KB002: the key has no value.
create or replace function kirby.blame(p_state_id integer, p_key text, p_most integer default 100000)
  returns table (path text, value jsonb, version bigint, "position" bigint, run_id bigint, job text, release text,
                 parents bigint[], recorded_at timestamptz, exact boolean)
  language plpgsql
  stable
  set jit = off
  set enable_sort = off  -- versions are read from their newest end (kirby.entries_of)
as $$
declare
  v_entry kirby.state_entry;
  v_floor bigint;  -- versions up to here are not looked at
begin
  select * into v_entry from kirby.state_entry e
   where e.state_id = p_state_id and e.key = p_key and e.op = 'set';
  if not found then
    perform kirby.fail('KB002', format('key %s has no value', p_key));
  end if;
  select m.position into v_floor from kirby.state_mutation m
   where m.state_id = p_state_id and m.key = p_key
   order by m.position desc offset p_most limit 1;

  return query
    with recursive parts as (
      select '{}'::text[] as way, '$'::text as path, v_entry.value
       union all
      select p.way || c.name, p.path || c.step, c.value
        from parts p
       cross join lateral (
             select o.key as name, o.value,
                    case when o.key ~ '^[A-Za-z_][A-Za-z0-9_]*$' then '.' || o.key else '[' || to_json(o.key) || ']' end as step
               from jsonb_each(case jsonb_typeof(p.value) when 'object' then p.value else '{}' end) o
              union all
             select (a.n - 1)::text, a.value, '[' || a.n - 1 || ']'
               from jsonb_array_elements(case jsonb_typeof(p.value) when 'array' then p.value else '[]' end)
                    with ordinality as a (value, n)) c
    )
    select l.path, l.value, m.version, m.position, m.run_id,
           coalesce(m.headers -> 'via' -> -1 ->> 0, j.name),
           coalesce(m.headers -> 'via' -> -1 ->> 1, kirby.release_of(m.run_id)),
           m.parents, m.recorded_at,
           (v_floor is null or broken.position is not null) and not kirby.has_lost(p_state_id, p_key, coalesce(broken.position, v_floor, 0))
      from parts l
      left join lateral (
           select b.position from kirby.state_mutation b
            where b.state_id = p_state_id and b.key = p_key and b.position > coalesce(v_floor, 0)
              and (b.op = 'delete' or (b.value #> l.way) is distinct from l.value)
            order by b.position desc limit 1) broken on true
     cross join lateral (
           select * from kirby.state_mutation o
            where o.state_id = p_state_id and o.key = p_key
              and o.position > coalesce(broken.position, v_floor, 0)
            order by o.position limit 1) m
      left join kirby.run r on r.id = m.run_id
      left join kirby.deployment d on d.id = r.deployment_id
      left join kirby.job j on j.id = d.job_id
     where jsonb_typeof(l.value) not in ('object', 'array') or l.value in ('{}', '[]')
     order by l.path collate "C";
end;
$$;
