-- Whether a topic gets its messages as often as a deployment promises; when to look again. While an exception holds the
-- deployment back they are not expected, and after it they have their whole time again.
create or replace function kirby.look_at_output(p_deadline kirby.deadline)
  returns timestamptz
  language plpgsql
  volatile
as $$
declare
  v_now        timestamptz := kirby.now();
  v_deployment kirby.deployment;
  v_version    kirby.deployment_version;
  v_daemon     boolean;
  v_period     interval;
  v_heard      timestamptz;
  v_run_id     bigint;
begin
  select * into v_deployment from kirby.deployment where id = p_deadline.deployment_id;
  select * into v_version from kirby.deployment_version
   where deployment_id = v_deployment.id and version = v_deployment.version;
  select j.kind = 'daemon' into v_daemon from kirby.job j where j.id = v_deployment.job_id;
  v_period := make_interval(secs => (v_version.expects ->> p_deadline.subject)::double precision);
  if kirby.is_at_rest(v_deployment.id, v_now, case when v_daemon then array['pause', 'manual'] end) then
    update kirby.deadline set closed_at = v_now  -- when it was seen at rest last
     where deployment_id = p_deadline.deployment_id and kind = 'output' and subject = p_deadline.subject
       and tick_at = p_deadline.tick_at;
    return v_now + least(v_period, interval '1 minute');
  end if;
  v_heard := greatest(v_version.created_at, p_deadline.closed_at,
                      kirby.last_output(v_deployment.environment_id, p_deadline.subject),
                      (select max(o.to_at) from kirby.outage o));
  if v_heard + v_period > v_now then
    perform kirby.resolve_incidents(v_deployment.id, v_deployment.environment_id, array['silent'],
                                    format('there is a message in %s', p_deadline.subject), 'topic ' || p_deadline.subject);
    return v_heard + v_period;
  end if;
  select r.id into v_run_id from kirby.run r
   where r.deployment_id = v_deployment.id and r.status in ('starting', 'running') order by r.id limit 1;
  perform kirby.find_silent(
    v_deployment.id, 'topic ' || p_deadline.subject,
    format('no message in %s for %s (%s)', p_deadline.subject, kirby.span(v_now - v_heard),
           coalesce('run ' || v_run_id || ' is alive but silent', 'no run is under way')),
    jsonb_build_object('topic', p_deadline.subject, 'heard_at', v_heard), v_run_id);
  return v_now + least(v_period, interval '15 seconds');
end;
$$;
