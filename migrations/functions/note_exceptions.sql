-- Tell the log of exceptions that are over what they had held, each once: all is as before, whoever sees it first.
-- Windows of versions that were replaced are passed over. Returns how many are over.
create or replace function kirby.note_exceptions()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_window kirby.exception_window;
  v_held   bigint;
  v_jobs   bigint;
  v_over   integer := 0;
begin
  for v_window in
    update kirby.exception_window w set noted_at = kirby.now()
     where (w.exception_id, w.version, w.from_at) in (
       select o.exception_id, o.version, o.from_at from kirby.exception_window o
        where o.noted_at is null and o.until_at <= kirby.now()
        order by o.until_at limit 200 for update skip locked)
    returning w.*
  loop
    continue when v_window.version < (select max(v.version) from kirby.exception_version v
                                       where v.exception_id = v_window.exception_id);
    select count(*), count(distinct t.deployment_id) into v_held, v_jobs
      from kirby.schedule_exception x
     cross join unnest(kirby.deployments_in(x.environment_id, x.scope, x.target)) as d (id)
      join kirby.tick t on t.deployment_id = d.id and t.at >= v_window.from_at and t.at < v_window.until_at
     where x.id = v_window.exception_id and t.held_by @> array[x.id];
    perform kirby.append_job_event(null, null, 'exception_over', jsonb_build_object(
              'exception_id', v_window.exception_id, 'from', v_window.from_at, 'until', v_window.until_at,
              'held', v_held, 'jobs', v_jobs), 'kirby');
    v_over := v_over + 1;
  end loop;
  return v_over;
end;
$$;
