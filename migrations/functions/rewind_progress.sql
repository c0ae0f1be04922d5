-- How far a rewind is, by subscription: of total replays so many are done (settled), in somebody's hands, waiting to
-- be delivered by themselves, failed (parked). The others are still to be handed out.
create or replace function kirby.rewind_progress(p_id bigint)
  returns table (name text, total bigint, done bigint, in_hands bigint, waiting bigint, failed bigint)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_rewind kirby.rewind;
  v_left   bigint;
  v_over   bigint;
  v_id     integer;
begin
  select * into v_rewind from kirby.rewind w where w.id = p_id;
  for v_id, name in select s.id, s.name from kirby.rewound(v_rewind.topic_id, v_rewind.subscriptions) s order by s.name loop
    select coalesce(sum(l.replays), 0), sum(l.done) into total, v_over
      from kirby.rewind_lane l where l.rewind_id = p_id and l.subscription_id = v_id;
    select coalesce(sum(greatest(0, l.passed + l.messages - c.delivered - f.fresh)), 0) into v_left
      from kirby.cursor c
      join kirby.rewind_lane l on l.subscription_id = v_id and l.lane = c.lane and l.rewind_id = p_id
     cross join lateral (
           select count(*) as fresh from kirby.rewind_fresh f
            where f.subscription_id = v_id and f.lane = c.lane
              and f.position > c.position and f.position <= l.until) f
     where c.subscription_id = v_id and c.rewind_id = p_id;
    select count(m.position) into in_hands
      from kirby.claim c
      join kirby.message m on m.topic_id = v_rewind.topic_id and m.lane = c.lane and m.position between c.first and c.last
     where c.subscription_id = v_id and c.id >= kirby.first_claim(v_id) and c.rewind_id = p_id
       and (c.kind = 'due' or not exists (select from kirby.due d where d.subscription_id = v_id and d.position = m.position)
                          and not exists (select from kirby.rewind_fresh f
                                           where f.subscription_id = v_id and f.position = m.position));
    select count(*) filter (where d.parked_at is null and (d.due_at < 'infinity' or d.reason = 'waiting')),
           count(*) filter (where d.parked_at is not null)
      into waiting, failed
      from kirby.due d where d.rewind_id = p_id and d.subscription_id = v_id and d.reason <> 'done';
    done := coalesce(v_over, greatest(0, total - v_left - in_hands - waiting - failed));
    return next;
  end loop;
end;
$$;
