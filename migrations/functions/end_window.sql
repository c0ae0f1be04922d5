-- Tell the log and people that an exception is over, with what it had held, and note it. A window of a version that was
-- replaced is only noted. Returns whether it was told.
create or replace function kirby.end_window(p_window kirby.exception_window)
  returns boolean
  language plpgsql
  volatile
as $$
declare
  v_held    bigint;
  v_jobs    bigint;
  v_started bigint;
begin
  update kirby.exception_window set noted_at = kirby.now()
   where exception_id = p_window.exception_id and version = p_window.version and from_at = p_window.from_at;
  if p_window.version < (select max(v.version) from kirby.exception_version v
                          where v.exception_id = p_window.exception_id) then
    return false;
  end if;
  -- What is caught up with (again) was held, and is held no more.
  select count(*), count(distinct t.deployment_id), count(*) filter (where t.again) into v_held, v_jobs, v_started
    from kirby.schedule_exception x
   cross join unnest(kirby.deployments_in(x.environment_id, x.scope, x.target)) as d (id)
    join kirby.tick t on t.deployment_id = d.id and t.at >= p_window.from_at and t.at < p_window.until_at
   where x.id = p_window.exception_id and (t.held_by @> array[x.id] or t.again);
  select v_started + count(*) into v_started
    from kirby.schedule_exception x
   cross join unnest(kirby.deployments_in(x.environment_id, x.scope, x.target)) as d (id)
    join kirby.tick t on t.deployment_id = d.id and t.at >= p_window.until_at
   where x.id = p_window.exception_id and not t.own and t.returns @> array[x.id] and t.status in ('planned', 'queued');
  perform kirby.append_job_event(null, null, 'exception_over', jsonb_build_object(
            'exception_id', p_window.exception_id, 'from', p_window.from_at, 'until', p_window.until_at,
            'held', v_held, 'jobs', v_jobs, 'started', v_started), 'kirby');
  perform kirby.tell_exception(p_window, 'over', jsonb_build_object('held', v_held, 'jobs', v_jobs, 'started', v_started));
  return true;
end;
$$;
