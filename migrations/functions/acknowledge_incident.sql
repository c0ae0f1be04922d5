-- Somebody knows of an incident and sees to it: no more digests, only its end is told. Audited; returns whether that is
-- news. KB002: no such incident. KB008: it is over.
create or replace function kirby.acknowledge_incident(p_id bigint, p_actor text, p_reason text default null)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_incident kirby.incident;
begin
  select * into v_incident from kirby.incident where id = p_id for update;
  if not found then
    perform kirby.fail('KB002', format('there is no incident %s', p_id));
  elsif v_incident.status = 'resolved' then
    perform kirby.fail('KB008', format('incident %s is over since %s', p_id,
                                       to_char(v_incident.resolved_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')));
  elsif v_incident.acknowledged_at is not null then
    return false;
  end if;
  update kirby.incident
     set acknowledged_at = kirby.now(), acknowledged_by = p_actor,
         announce_at = case when announced_at is null then announce_at end
   where id = p_id;
  perform kirby.audit(p_actor, 'incident_acknowledged', 'incident/' || p_id, p_reason => p_reason);
  return true;
end;
$$;
