-- Whether a replay that is due by itself is not to be handed out now: its rewind is paused, or over its rate.
create or replace function kirby.put_off_replay(p_due kirby.due)
  returns boolean
  language plpgsql
  volatile
as $$
begin
  if kirby.replay_room(p_due.rewind_id, 1) = 0 then
    update kirby.due d
       set due_at = greatest(kirby.now() + interval '50 milliseconds', case w.status when 'running' then w.rate_at
                             else kirby.now() + interval '1 second' end)
      from kirby.rewind w
     where w.id = p_due.rewind_id and d.subscription_id = p_due.subscription_id and d.position = p_due.position;
    return true;
  end if;
  perform kirby.count_replays(p_due.rewind_id, 1);
  return false;
end;
$$;
