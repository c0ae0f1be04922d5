-- Whether a daemon's replica is heard of: a line of output, or progress, within its heartbeat. When to look again. One
-- that does not run is another matter (kirby.look_at_replica).
create or replace function kirby.look_at_heartbeat(p_deadline kirby.deadline)
  returns timestamptz
  language plpgsql
  volatile
as $$
declare
  v_now    timestamptz := kirby.now();
  v_period interval;
  v_run    kirby.run;
  v_heard  timestamptz;
  v_name   text := 'replica ' || p_deadline.subject;
begin
  select make_interval(secs => v.heartbeat) into v_period
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = p_deadline.deployment_id;
  select * into v_run from kirby.run
   where deployment_id = p_deadline.deployment_id and replica = p_deadline.subject::smallint and not canary
     and status = 'running';
  if not found then
    return v_now + v_period;
  end if;
  v_heard := greatest(v_run.started_at, v_run.progress_at,
                      (select l.at from kirby.log_line l where l.run_id = v_run.id order by l.position desc limit 1),
                      (select max(o.to_at) from kirby.outage o));
  if v_heard + v_period > v_now then
    perform kirby.resolve_incidents(p_deadline.deployment_id, v_run.environment_id, array['silent'],
                                    format('%s is heard of again', v_name), v_name);
    return v_heard + v_period;
  end if;
  perform kirby.find_silent(p_deadline.deployment_id, v_name,
    format('%s is alive but silent: nothing was heard of run %s for %s', v_name, v_run.id, kirby.span(v_now - v_heard)),
    jsonb_build_object('replica', v_run.replica, 'heard_at', v_heard,
                       'host', (select s.host from kirby.supervisor s where s.id = v_run.supervisor_id)),
    v_run.id);
  return v_now + least(v_period, interval '15 seconds');
end;
$$;
