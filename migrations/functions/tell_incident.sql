-- One notice of an incident, and the event that it was told. What cannot be told is tried again in a minute, so that it
-- does not keep the others from being told.
create or replace function kirby.tell_incident(p_incident kirby.incident, p_event text)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_channels integer;
begin
  v_channels := kirby.send_notice(p_incident.id, p_event, '{}');
  perform kirby.append_job_event(null, p_incident.deployment_id, 'incident_told',
            jsonb_build_object('incident', p_incident.id, 'event', p_event, 'channels', v_channels), 'kirby');
exception when others then
  raise warning 'incident % could not be told: %', p_incident.id, sqlerrm;
  update kirby.incident set announce_at = kirby.now() + interval '1 minute', announced_at = p_incident.announced_at
   where id = p_incident.id;
end;
$$;
