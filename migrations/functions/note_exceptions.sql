-- Tell of exceptions that are over, and remind of those that will soon be, each once: see kirby.end_window and
-- kirby.remind_window. What cannot be told is tried again in the next round, and keeps no other from being told.
-- Returns how many are over.
create or replace function kirby.note_exceptions()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := kirby.now();
  v_window kirby.exception_window;
  v_over   integer := 0;
begin
  for v_window in
    select * from kirby.exception_window
     where reminded_at is null and until_at <= v_now + interval '15 minutes'
     order by until_at limit 200 for update skip locked
  loop
    begin
      perform kirby.remind_window(v_window);
    exception when others then
      raise warning 'nobody could be reminded of exception %: %', v_window.exception_id, sqlerrm;
    end;
  end loop;
  for v_window in
    select * from kirby.exception_window
     where noted_at is null and until_at <= v_now
     order by until_at limit 200 for update skip locked
  loop
    begin
      v_over := v_over + kirby.end_window(v_window)::integer;
    exception when others then
      raise warning 'the end of exception % could not be told: %', v_window.exception_id, sqlerrm;
    end;
  end loop;
  return v_over;
end;
$$;
