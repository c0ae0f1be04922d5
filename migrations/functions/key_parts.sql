-- The messages of these keys above p_after, up to p_until (NULL: all), that a subscription was given, and whether it
-- never settled them.
create or replace function kirby.key_parts(
  p_subscription kirby.subscription,
  p_after bigint,
  p_until bigint,
  p_keys text[]
)
  returns table (lane smallint, "position" bigint, key text, undone boolean)
  language plpgsql
  volatile
as $$
declare
  v_sifted boolean := (select t.sifted from kirby.topic t where t.id = p_subscription.topic_id);
begin
  return query
    select m.lane, m.position, m.key, m.position = any (u.list)
      from (select distinct l.lane
              from unnest(p_keys) as k (key)
             cross join lateral unnest(kirby.lanes_of(p_subscription.topic_id, k.key)) as l (lane)) l
      join kirby.cursor c on c.subscription_id = p_subscription.id and c.lane = l.lane
     cross join lateral (
           select array(select kirby.undone_in(p_subscription, l.lane, p_after, coalesce(p_until, c.position)))
                  as list) u
      join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = l.lane and m.position > p_after
                          and m.position <= least(p_until, c.position) and m.key = any (p_keys)
     where not (v_sifted and kirby.is_gone(m))
       and not exists (select from kirby.due d  -- it comes again already
                        where d.subscription_id = p_subscription.id and d.position = m.position
                          and d.rewind_id is not null);
end;
$$;
