-- What the code of jobs says that it reads and writes: out of which topic into which topic or state (name, whether
-- it is there or not), in an environment. A job that says nothing of where to has an edge without a target.
create or replace function kirby.declared_edges(p_environment_id smallint)
  returns table (source text, job text, release text, kind text, target text, at timestamptz)
  language sql
  stable
as $$
  select t.name, d.job, d.release, o.kind, o.name, d.at
    from kirby.declaration d
    join kirby.subscription s on s.id = d.subscription_id
    join kirby.topic t on t.id = s.topic_id
    left join lateral (
         select 'message' as kind, n.name
           from jsonb_array_elements_text(case jsonb_typeof(d.document -> 'to')
                  when 'array' then d.document -> 'to'
                  when 'string' then jsonb_build_array(d.document -> 'to') else '[]' end) as n (name)
          union
         select 'mutation', n.name
           from jsonb_array_elements_text(case jsonb_typeof(d.document -> 'states')
                  when 'array' then d.document -> 'states' else '[]' end) as n (name)
         ) o on true
   where d.environment_id = p_environment_id;
$$;
