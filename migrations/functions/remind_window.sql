-- Remind people that an exception will soon be over, and note it: of one that lasts an hour or more. It was due before its
-- end: a leader that comes too late says nothing.
create or replace function kirby.remind_window(p_window kirby.exception_window)
  returns void
  language plpgsql
  volatile
as $$
begin
  update kirby.exception_window set reminded_at = kirby.now()
   where exception_id = p_window.exception_id and version = p_window.version and from_at = p_window.from_at;
  if p_window.until_at > kirby.now() and p_window.until_at >= p_window.from_at + interval '1 hour' then
    perform kirby.tell_exception(p_window, 'ending', '{}');
  end if;
end;
$$;
