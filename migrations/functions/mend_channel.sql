-- Resolve the incident of a channel, if there is one.
create or replace function kirby.mend_channel(p_channel kirby.channel, p_actor text, p_reason text)
  returns void
  language plpgsql
  volatile
as $$
begin
  perform kirby.resolve_incident(i.id, p_actor, p_reason)
     from kirby.incident i
    where i.kind = 'channel' and i.status = 'open' and i.fingerprint = 'channel/' || p_channel.id
      and i.environment_id is not distinct from p_channel.environment_id and i.deployment_id is null;
end;
$$;
