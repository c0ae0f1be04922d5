-- The run of a tick has not started in time. If Kirby itself was down meanwhile, that is told, and not each job by itself.
create or replace function kirby.miss_start(p_deadline kirby.deadline, p_tick kirby.tick, p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_environment_id smallint;
  v_outage         kirby.outage;
  v_stage          jsonb;
  v_text           text;
begin
  select environment_id into v_environment_id from kirby.deployment where id = p_deadline.deployment_id;
  v_stage := kirby.stage_of(p_run);
  v_text := v_stage ->> 'text';
  select * into v_outage from kirby.outage
   where to_at > p_deadline.tick_at and from_at < p_deadline.due_at
   order by to_at desc limit 1;
  if found then
    v_stage := v_stage || jsonb_build_object('outage', v_outage.id, 'cause', 'Kirby itself was down');
    v_text := format('Kirby itself was down for %s', kirby.span(v_outage.to_at - v_outage.from_at));
  end if;
  perform kirby.open_incident(
    v_environment_id, p_deadline.deployment_id, 'missed', '',
    format('the run of %s has not started: %s', p_tick.local, v_text),
    v_stage || jsonb_build_object('tick_at', p_tick.at, 'local', p_tick.local, 'due_at', p_deadline.due_at),
    p_run.id,
    (select i.id from kirby.incident i
      where i.environment_id is null and i.deployment_id is null and i.kind = 'platform'
        and i.fingerprint = 'outage ' || v_outage.id and i.status = 'open'));
end;
$$;
