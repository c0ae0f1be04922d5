-- Tell people of an exception, in the caller's transaction: one message for each channel with a route that names it
-- (kirby.send_to_channels). p_event: ending, over; p_counts: what it held. Nothing is told of one that recurs, whose windows
-- come all the time, nor of one that Kirby made itself, nor of a version that was replaced. Returns how many are told.
create or replace function kirby.tell_exception(p_window kirby.exception_window, p_event text, p_counts jsonb)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_notice jsonb := kirby.exception_notice(p_window, p_event, p_counts);
begin
  if v_notice is null then
    return 0;
  end if;
  return kirby.send_to_channels(
    (select x.environment_id from kirby.schedule_exception x where x.id = p_window.exception_id),
    array(select c.id from kirby.exception_channels(p_window.exception_id, p_event) c),
    v_notice);
end;
$$;
