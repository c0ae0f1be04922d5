-- The run of a tick has started, or succeeded: its mark is met if it was still to come, and what was missed before is over.
create or replace function kirby.meet_mark(p_run kirby.run, p_kind text)
  returns void
  language plpgsql
  volatile
as $$
begin
  if p_run.tick_at is null then
    return;
  end if;
  update kirby.deadline set status = case when due_at >= kirby.now() then 'met' else 'missed' end, closed_at = kirby.now()
   where deployment_id = p_run.deployment_id and kind = p_kind and subject = '' and tick_at = p_run.tick_at
     and status = 'open';
  perform kirby.resolve_incidents(p_run.deployment_id, p_run.environment_id,
            case p_kind when 'start' then array['missed'] else array['late'] end,
            format('run %s %s', p_run.id, case p_kind when 'start' then 'has started' else 'has succeeded' end),
            p_tick_at => p_run.tick_at);
end;
$$;
