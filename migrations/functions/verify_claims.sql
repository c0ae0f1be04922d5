-- Claims that break what they promise: a range lies below its lane's cursor (or where it was before a rewind), no message is in two ranges of a lane,
-- an ordered subscription has one range of a lane, and a message that is delivered by itself is noted as due,
-- unless retention removed it (its claim goes when it is settled, or its lease ends).
create or replace function kirby.verify_claims()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('claim %s', c.id), jsonb_build_object('last, at most', p.position), jsonb_build_object('last', c.last)
    from kirby.claim c
    left join kirby.cursor p on p.subscription_id = c.subscription_id and p.lane = c.lane
    left join kirby.rewind_lane w on w.subscription_id = c.subscription_id and w.lane = c.lane
                                 and w.rewind_id = p.rewind_id
   where c.last > greatest(p.position, w.upto, -1)
   union all
  select format('claim %s', c.id), jsonb_build_object('others of its range or lane', '[]'::jsonb),
         jsonb_build_object('others of its range or lane', jsonb_agg(o.id order by o.id))
    from kirby.claim c
    join kirby.subscription s on s.id = c.subscription_id
    join kirby.claim o on o.subscription_id = c.subscription_id and o.lane = c.lane and o.id <> c.id
                      and o.kind = 'range'
                      and (s.mode = 'ordered' or o.first <= c.last and c.first <= o.last)
   where c.kind = 'range'
   group by c.id
   union all
  select format('claim %s', c.id), jsonb_build_object('due', 'in hands'), to_jsonb(d) - 'payload'
    from kirby.claim c
    left join kirby.due d on d.subscription_id = c.subscription_id and d.position = c.first
   where c.kind = 'due' and (d.position is null or d.due_at < 'infinity' or d.parked_at is not null)
     and not (d.position is null and exists (
           select from kirby.subscription s join kirby.topic_retention r on r.topic_id = s.topic_id
            where s.id = c.subscription_id and c.first <= r.gone_to));
$$;
