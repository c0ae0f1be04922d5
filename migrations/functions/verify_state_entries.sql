-- Entries of states that are not the latest mutation of their key. See kirby db verify.
create or replace function kirby.verify_state_entries()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s/%s/%s', v.name, s.name, k.key), to_jsonb(t), to_jsonb(f)
    from (select distinct on (m.state_id, m.key)
                 m.state_id, m.key, m.version, m.op, m.value, m.position, m.run_id, m.recorded_at as updated_at
            from kirby.state_mutation m
           order by m.state_id, m.key, m.position desc) t
    full join (select e.state_id, e.key, e.version, e.op, e.value, e.position, e.run_id, e.updated_at
                 from kirby.state_entry e) f on f.state_id = t.state_id and f.key = t.key
   cross join lateral (select coalesce(t.state_id, f.state_id) as state_id, coalesce(t.key, f.key) as key) k
    left join kirby.state s on s.id = k.state_id
    left join kirby.environment v on v.id = s.environment_id
   where (t.version, t.op, t.value, t.position, t.run_id, t.updated_at)
         is distinct from (f.version, f.op, f.value, f.position, f.run_id, f.updated_at);
$$;
