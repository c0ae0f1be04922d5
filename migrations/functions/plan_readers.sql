-- Of a plan: the subscriptions that are rewound, and how many messages come again to each of them.
create or replace function kirby.plan_readers(
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
  select coalesce(jsonb_agg(jsonb_build_object(
           'name', s.name, 'mode', s.mode, 'on_replay', s.on_replay, 'messages', c.messages, 'fresh', c.fresh,
           'in_hands', h.in_hands, 'paused', s.paused_at is not null) order by s.name), '[]')
    from kirby.rewound(p_topic.id, p_only) r
   cross join lateral (select (r).*) s
   cross join lateral (
         select coalesce(sum(n.messages), 0) as messages, coalesce(sum(n.fresh), 0) as fresh
           from (select p.replays as messages,
                        (select count(*) from kirby.undone_in(r, p.lane, p.after, p.until)) as fresh
                   from kirby.rewind_parts(r, p_after, p_until) p
                  where p_keys is null
                  union all
                 select (not k.undone)::integer, k.undone::integer
                   from kirby.key_parts(r, p_after, p_until, p_keys) k
                  where p_keys is not null) n) c
   cross join lateral (
         select count(m.position) as in_hands
           from kirby.claim o
           join kirby.message m on m.topic_id = p_topic.id and m.lane = o.lane and m.position between o.first and o.upto
          where o.subscription_id = s.id and o.id >= kirby.first_claim(s.id)
            and m.position > p_after and m.position <= coalesce(p_until, m.position)
            and (p_keys is null or m.key = any (p_keys))
            and (o.kind = 'due' or not exists (
                  select from kirby.due d where d.subscription_id = s.id and d.position = m.position))) h;
$$;
