-- Note that a rewind is over, and how much of it was done.
create or replace function kirby.close_rewind(p_rewind kirby.rewind, p_status text, p_actor text, p_reason text default null)
  returns void
  language plpgsql
  volatile
as $$
begin
  update kirby.rewind set status = p_status, ended_at = kirby.now(), waits = '{}' where id = p_rewind.id;
  perform kirby.audit(p_actor, 'rewind_' || p_status, 'rewind/' || p_rewind.id, p_reason => p_reason,
                      p_after => (select jsonb_object_agg(p.name, p.done) from kirby.rewind_progress(p_rewind.id) p));
  update kirby.rewind_lane l set done = case when l.lane = f.lane then p.done else 0 end
    from (select s.id, min(l.lane) as lane, s.name
            from kirby.subscription s join kirby.rewind_lane l on l.subscription_id = s.id and l.rewind_id = p_rewind.id
           group by s.id) f
    join kirby.rewind_progress(p_rewind.id) p on p.name = f.name
   where l.rewind_id = p_rewind.id and l.subscription_id = f.id;
  perform kirby.forget_fresh(p_rewind.id);
end;
$$;
