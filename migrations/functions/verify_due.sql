-- Messages to be delivered by themselves that break what they promise: each is a message of its lane that was handed
-- out, with its key; one that waits has something before it that holds its key; one in hands has its claim; one
-- that is done is covered by an open range, or its lane was moved back behind it.
create or replace function kirby.verify_due()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s/%s/%s position %s', e.name, t.name, s.name, d.position), w.expected, to_jsonb(d) - 'payload'
    from kirby.due d
    join kirby.subscription s on s.id = d.subscription_id
    join kirby.topic t on t.id = s.topic_id
    join kirby.environment e on e.id = t.environment_id
    left join kirby.message m on m.topic_id = s.topic_id and m.lane = d.lane and m.position = d.position
    left join kirby.cursor c on c.subscription_id = s.id and c.lane = d.lane
    left join kirby.rewind_lane p on p.subscription_id = s.id and p.lane = d.lane and p.rewind_id = c.rewind_id
   cross join lateral (
         select jsonb_build_object('message', 'in this lane') as expected where m.position is null
          union all
         select jsonb_build_object('key', m.key) where m.position is not null and m.key is distinct from d.key
          union all
         select jsonb_build_object('position, at most', greatest(c.position, p.upto))
          where d.position > greatest(c.position, p.upto, -1)
          union all
         select jsonb_build_object('reason', 'its key is held by another')
          where d.reason = 'waiting' and d.parked_at is null and s.mode = 'ordered'
            and not exists (select from kirby.due h
                             where h.subscription_id = d.subscription_id and h.key = d.key and h.position <> d.position
                               and h.reason not in ('done', 'waiting', 'delayed')
                               and (h.parked_at is null or s.on_failure = 'block'))
          union all
         select jsonb_build_object('claim', 'of its own')
          where d.due_at = 'infinity' and d.parked_at is null and d.reason not in ('waiting', 'done')
            and not exists (select from kirby.claim h
                             where h.subscription_id = d.subscription_id and h.kind = 'due' and h.first = d.position)
          union all
         select jsonb_build_object('claim', 'a range that covers it, or ends behind it')
          where d.reason = 'done' and d.position <= c.position
            and not exists (select from kirby.claim h
                             where h.subscription_id = d.subscription_id and h.lane = d.lane and h.kind = 'range'
                               and h.last >= d.position)
         ) w;
$$;
