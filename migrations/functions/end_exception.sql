-- End an exception now, or before it has begun; from here on schedules are as they were. Returns its version.
-- KB002: no such exception. KB004: it is over.
create or replace function kirby.end_exception(p_id integer, p_actor text, p_reason text default null)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before kirby.exception_version := kirby.open_exception(p_id);
  v_now    timestamptz := kirby.now();
begin
  return kirby.put_exception(p_id, 'ended', to_jsonb(v_before) || jsonb_build_object(
           'from_at', least(v_before.from_at, v_now), 'until_at', v_now, 'reason', coalesce(nullif(p_reason, ''), v_before.reason),
           'windows', kirby.windows_begun(v_before, v_now)), p_actor);
end;
$$;
