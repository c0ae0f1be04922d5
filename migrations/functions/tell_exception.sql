-- Tell people of an exception, in the caller's transaction: one message for each channel with a route that names it, as
-- kirby.send_notice does. p_event: ending, over; p_counts: what it held. Nothing is told of one that recurs, whose windows
-- come all the time, nor of one that Kirby made itself, nor of a version that was replaced. Returns how many are told.
create or replace function kirby.tell_exception(p_window kirby.exception_window, p_event text, p_counts jsonb)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_notice         jsonb := kirby.exception_notice(p_window, p_event, p_counts);
  v_environment_id smallint;
  v_messages       jsonb;
  v_told           integer := 0;
begin
  if v_notice is null then
    return 0;
  end if;
  for v_environment_id, v_messages in
    select coalesce(x.environment_id, c.environment_id, (select min(e.id) from kirby.environment e)) as place,
           jsonb_agg(jsonb_build_object(
             'k', c.name, 'v', v_notice || jsonb_build_object('channel', c.name, 'channel_id', c.id)) order by c.id)
      from kirby.schedule_exception x, kirby.exception_channels(p_window.exception_id, p_event) c
     where x.id = p_window.exception_id
     group by place
     order by place
  loop
    perform kirby.append_messages(v_environment_id, null, jsonb_build_object('kirby.notices', v_messages));
    v_told := v_told + jsonb_array_length(v_messages);
  end loop;
  return v_told;
end;
$$;
