-- Tell people of an incident, in the caller's transaction: one message for each channel with a route that names it, on
-- the topic kirby.notices of the incident's environment, by the key of the channel: a channel hears everything in its
-- order, and whoever delivers it can be killed at any moment. What is about no environment is told in the channel's
-- own, or in the first. p_event: opened, updated, retried, resolved; p_document is put into the notice as 'more'.
-- Returns how many channels are told. KB002: no such incident.
create or replace function kirby.send_notice(p_incident_id bigint, p_event text, p_document jsonb default '{}')
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_notice         jsonb := kirby.notice_of(p_incident_id, p_event, p_document);
  v_environment_id smallint;
  v_messages       jsonb;
  v_told           integer := 0;
begin
  if v_notice is null then
    perform kirby.fail('KB002', format('there is no incident %s', p_incident_id));
  end if;
  for v_environment_id, v_messages in
    select coalesce(i.environment_id, c.environment_id, (select min(e.id) from kirby.environment e)) as place,
           jsonb_agg(jsonb_build_object(
             'k', c.name, 'v', v_notice || jsonb_build_object('channel', c.name, 'channel_id', c.id)) order by c.id)
      from kirby.incident i, kirby.channels_of(p_incident_id, p_event) c
     where i.id = p_incident_id
     group by place
     order by place
  loop
    perform kirby.append_messages(v_environment_id, null, jsonb_build_object('kirby.notices', v_messages));
    v_told := v_told + jsonb_array_length(v_messages);
  end loop;
  return v_told;
end;
$$;
