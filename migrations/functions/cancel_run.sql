-- Cancel a run: at once if it has not started, otherwise its supervisor stops it. Returns whether there
-- was anything to cancel: asking again changes nothing. KB002: no such run. KB008: it has ended.
create or replace function kirby.cancel_run(p_run_id bigint, p_reason text, p_actor text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run kirby.run;
begin
  select * into v_run from kirby.run where id = p_run_id for update;
  if v_run.cancel_at is not null and v_run.ended_at is null then
    return false;
  end if;
  perform kirby.record_run(
    p_run_id,
    case when v_run.status = 'queued' then 'run_cancelled' else 'run_cancel_requested' end,
    jsonb_build_object('reason', p_reason),
    p_actor);
  return true;
end;
$$;
