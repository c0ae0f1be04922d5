-- What could not be delivered at a channel yet: what waits for its next try, what waits behind that, and what was given
-- up (parked).
create or replace function kirby.notices_at(p_channel_id integer)
  returns table (subscription_id integer, "position" bigint, environment text, attempt smallint, due_at timestamptz,
                 parked_at timestamptz, reason text, error text, payload jsonb)
  language sql
  stable
as $$
  select s.id, d.position, e.name, d.attempt, nullif(d.due_at, 'infinity'), d.parked_at, d.reason, d.error, m.payload
    from kirby.channel c
    join kirby.topic t on t.name = 'kirby.notices'
    join kirby.environment e on e.id = t.environment_id
    join kirby.subscription s on s.topic_id = t.id and s.name = 'channels'
    join kirby.due d on d.subscription_id = s.id and d.key = c.name and d.reason <> 'done'
    join kirby.message m on m.topic_id = t.id and m.lane = d.lane and m.position = d.position
   where c.id = p_channel_id and m.payload ->> 'channel_id' = c.id::text;
$$;
