-- Note how much of a rewind was done, by subscription: before its lanes go on elsewhere, by which it is counted. What is
-- noted stays (kirby.rewind_progress).
create or replace function kirby.note_done(p_rewind_id bigint)
  returns void
  language sql
  volatile
as $$
  update kirby.rewind_lane l set done = case when l.lane = f.lane then p.done else 0 end
    from (select s.id, min(l.lane) as lane, s.name
            from kirby.subscription s join kirby.rewind_lane l on l.subscription_id = s.id and l.rewind_id = p_rewind_id
           group by s.id) f
    join kirby.rewind_progress(p_rewind_id) p on p.name = f.name
   where l.rewind_id = p_rewind_id and l.subscription_id = f.id;
$$;
