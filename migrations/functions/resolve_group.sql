-- A group (a storm, an outage) is over when it has been told and all that it tells of is over.
create or replace function kirby.resolve_group(p_id bigint)
  returns void
  language plpgsql
  volatile
as $$
begin
  perform from kirby.incident
    where id = p_id and status = 'open' and kind in ('storm', 'platform') and announced_at is not null
      for update;  -- the last two that end at the same moment do not miss each other
  if found and not exists (select from kirby.incident i where i.told_in = p_id and i.status = 'open') then
    perform kirby.resolve_incident(p_id, 'kirby', 'all that it tells of is over');
  end if;
end;
$$;
