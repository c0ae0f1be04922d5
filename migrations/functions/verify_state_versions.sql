-- Mutations whose version is not the next one of their key.
create or replace function kirby.verify_state_versions()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s/%s/%s at %s', v.name, s.name, m.key, m.position),
         jsonb_build_object('version', m.next), jsonb_build_object('version', m.version)
    from (select u.state_id, u.key, u.position, u.version,
                 row_number() over (partition by u.state_id, u.key order by u.position) as next
            from kirby.state_mutation u) m
    left join kirby.state s on s.id = m.state_id
    left join kirby.environment v on v.id = s.environment_id
   where m.version <> m.next;
$$;
