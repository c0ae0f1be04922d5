-- Producer ids, results and notes of what was taken back whose message is not where they say, though retention did
-- not remove it.
create or replace function kirby.verify_references()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s %s/%s %s', r.kind, e.name, t.name, r.id), jsonb_build_object('message at', r.position), null::jsonb
    from (select 'produced' as kind, p.topic_id, p.id, p.lane, p.position from kirby.produced p
           union all
          select 'result', x.topic_id, x.task::text, x.lane, x.position from kirby.result x
           union all
          select 'retracted', x.topic_id, x.position::text, null, x.position from kirby.retracted x) r
    left join kirby.topic t on t.id = r.topic_id
    left join kirby.environment e on e.id = t.environment_id
    left join kirby.topic_retention k on k.topic_id = r.topic_id
   where r.position > coalesce(k.gone_to, 0)
     and not exists (select from kirby.message m
                      where m.topic_id = r.topic_id and m.position = r.position and m.lane = coalesce(r.lane, m.lane));
$$;
