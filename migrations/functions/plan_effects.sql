-- Of a plan: the outside effects that the rewound subscriptions had from the messages that come again.
create or replace function kirby.plan_effects(
  p_topic kirby.topic,
  p_after bigint,
  p_until bigint,
  p_keys text[],
  p_only text[]
)
  returns jsonb
  language sql
  volatile
as $$
  select coalesce(jsonb_agg(to_jsonb(o) order by o.name), '[]')
    from (select f.name, count(*) as times
            from kirby.rewound(p_topic.id, p_only) s
            join kirby.effect f on f.subscription_id = s.id and f.position > p_after
                               and f.position <= coalesce(p_until, f.position)
           where p_keys is null or exists (
                 select from kirby.message m
                  where m.topic_id = p_topic.id and m.position = f.position and m.key = any (p_keys))
           group by f.name) o;
$$;
