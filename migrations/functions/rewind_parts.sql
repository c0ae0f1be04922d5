-- What of each lane of a subscription comes again if it is rewound to p_after (what lies above it comes again), up
-- to p_until (NULL: all that was handed out; of one lane, if it is named), as rows of kirby.rewind_lane. A lane with nothing: no messages.
--
-- A range in somebody's hands at either end is taken in whole: what of it lies outside, and was done by itself,
-- stays noted as done. What an open rewind has not handed out yet is taken over.
-- KB004: what such a one has left lies apart from the new part.
create or replace function kirby.rewind_parts(
  p_subscription kirby.subscription,
  p_after bigint,
  p_until bigint,
  p_lane smallint default null
)
  returns setof kirby.rewind_lane
  language plpgsql
  volatile
as $$
declare
  v_sifted boolean := (select t.sifted from kirby.topic t where t.id = p_subscription.topic_id);
  v_cursor kirby.cursor;
  v_old    kirby.rewind_lane;
  v_part   kirby.rewind_lane;
begin
  for v_cursor in
    select * from kirby.cursor c
     where c.subscription_id = p_subscription.id and (p_lane is null or c.lane = p_lane) order by c.lane
  loop
    select * into v_old from kirby.rewind_lane l
     where l.subscription_id = p_subscription.id and l.lane = v_cursor.lane and l.rewind_id = v_cursor.rewind_id;
    v_part.subscription_id := p_subscription.id;
    v_part.lane := v_cursor.lane;
    v_part.upto := greatest(v_cursor.position, v_old.upto);
    v_part.delivered := coalesce(v_old.delivered, v_cursor.delivered);
    v_part.after := p_after;
    v_part.until := least(p_until, v_part.upto);
    if v_old.rewind_id is not null and v_part.after < v_part.until then
      if v_part.after > v_old.until or v_part.until < v_cursor.position then
        perform kirby.fail('KB004', format('rewind %s of %s is not over, and what is left of it lies apart: wait for it, or abort it', v_old.rewind_id, p_subscription.name));
      end if;
      v_part.after := least(v_part.after, v_cursor.position);
      v_part.until := greatest(v_part.until, v_old.until);
    end if;
    select least(v_part.after, min(c.first) filter (where c.first <= v_part.after) - 1),
           greatest(v_part.until, max(c.last) filter (where c.last > v_part.until))
      into v_part.after, v_part.until
      from kirby.claim c
     where c.subscription_id = p_subscription.id and c.id >= kirby.first_claim(p_subscription.id)
       and c.lane = v_cursor.lane and c.kind = 'range' and v_part.after < v_part.until
       and (c.first <= v_part.after and c.last > v_part.after or c.first <= v_part.until and c.last > v_part.until);

    select count(*), count(*) filter (where not u.undone and not g.gone and not n.noted)
      into v_part.messages, v_part.replays
      from (select array(select kirby.undone_in(p_subscription, v_cursor.lane, v_part.after, v_part.until)) as list) a
      join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = v_cursor.lane
                          and m.position > v_part.after and m.position <= v_part.until
     cross join lateral (select m.position = any (a.list) as undone) u
     cross join lateral (select v_sifted and kirby.is_gone(m) as gone) g
     cross join lateral (
           select (m.position <= p_after or m.position > p_until) and exists (
                    select from kirby.due d where d.subscription_id = p_subscription.id and d.position = m.position
                                              and d.reason = 'done') as noted) n;
    v_part.passed := v_cursor.delivered - (
      select count(*) from kirby.message m
       where m.topic_id = p_subscription.topic_id and m.lane = v_cursor.lane
         and m.position > v_part.after and m.position <= v_cursor.position);
    return next v_part;
  end loop;
end;
$$;
