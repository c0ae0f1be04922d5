-- A run tells how far it is: a part between 0 and 1, or null, and a few words. Returns whether it was taken: calls
-- that follow each other within 0.2 s are not, except for the last (1), so that a wild loop cannot flood the log. KB001:
-- not between 0 and 1, or whoever asks is no run. KB008: the run is not under way.
create or replace function kirby.report_progress(p_done double precision, p_text text default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who  record;
  v_run  kirby.run;
  v_text text := left(p_text, 500);
begin
  select * into v_who from kirby.principal();
  if v_who.run_id is null then
    perform kirby.fail('KB001', 'only a run has progress');
  elsif not p_done between 0 and 1 then
    perform kirby.fail('KB001', format('progress is %s: from 0 to 1', p_done));
  end if;

  select * into v_run from kirby.run where id = v_who.run_id for no key update;
  if v_run.status not in ('starting', 'running') then
    perform kirby.fail('KB008', format('run %s is %s', v_run.id, v_run.status));
  elsif v_run.progress_at > kirby.now() - interval '0.2 seconds' and p_done is distinct from 1 then
    return false;
  end if;
  perform kirby.append_job_event(v_run.id, v_run.deployment_id, 'run_progress',
                                 jsonb_strip_nulls(jsonb_build_object('progress', p_done, 'text', v_text)), v_who.actor);
  update kirby.run set progress = p_done, progress_text = v_text, progress_at = kirby.now() where id = v_run.id;
  return true;
end;
$$;
