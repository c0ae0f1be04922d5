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
  perform kirby.note_done(p_rewind.id);
  perform kirby.forget_fresh(p_rewind.id);
end;
$$;
