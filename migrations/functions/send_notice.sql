-- Tell people of an incident, in the caller's transaction: one message for each channel with a route that names it
-- (kirby.send_to_channels): a channel hears everything in its order, and whoever delivers it can be killed at any moment.
-- p_event: opened, updated, retried, resolved; p_document is put into the notice as 'more'.
-- Returns how many channels are told. KB002: no such incident.
create or replace function kirby.send_notice(p_incident_id bigint, p_event text, p_document jsonb default '{}')
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_notice jsonb := kirby.notice_of(p_incident_id, p_event, p_document);
begin
  if v_notice is null then
    perform kirby.fail('KB002', format('there is no incident %s', p_incident_id));
  end if;
  return kirby.send_to_channels(
    (select i.environment_id from kirby.incident i where i.id = p_incident_id),
    array(select c.id from kirby.channels_of(p_incident_id, p_event) c),
    v_notice);
end;
$$;
