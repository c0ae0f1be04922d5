-- For each subscription of a topic the first message that it is not done with: not handed out yet, in
-- somebody's hands, or to be delivered by itself (parked, delayed and waiting ones too). In one statement, so
-- one snapshot: a message that moves on from one of them to the next is in one of them.
create or replace function kirby.unread(p_topic_id integer)
  returns table (subscription_id integer, "position" bigint, reason text)
  language sql
  stable
as $$
  select distinct on (s.id) s.id, u.position, u.reason
    from kirby.subscription s
    join kirby.topic t on t.id = s.topic_id
   cross join lateral (
         select m.position, 'not handed out yet' as reason
           from generate_series(0, t.lanes - 1) as l (lane)
          cross join lateral (
                select o.position from kirby.cursor o
                 where o.subscription_id = s.id and o.lane = l.lane
                 order by o.position desc limit 1) c
          cross join lateral (
                select m.position from kirby.message m
                 where m.topic_id = p_topic_id and m.lane = l.lane and m.position > c.position
                 order by m.position limit 1) m
          union all
         select c.first, 'in hands' from kirby.claim c
          where c.subscription_id = s.id and c.id >= kirby.first_claim(s.id)
          union all
         (select d.position, case when d.parked_at is not null then 'parked'
                                  when d.reason in ('delayed', 'waiting') then d.reason else 'to be retried' end
            from kirby.due d where d.subscription_id = s.id and d.reason <> 'done'
           order by d.position limit 1)
         ) u
   where s.topic_id = p_topic_id
   order by s.id, u.position;
$$;
