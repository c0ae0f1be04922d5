-- An incident is over; returns whether it was open. That is told if its beginning was. With the last one that a group
-- tells of, the group is over too; and what a group tells of is over with it. Audited when a person says so. KB002: no such incident.
create or replace function kirby.resolve_incident(p_id bigint, p_actor text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := kirby.now();
  v_incident kirby.incident;
begin
  perform from kirby.incident  -- the group first, as everybody does that ends one of it
    where id = (select i.told_in from kirby.incident i where i.id = p_id) for update;
  update kirby.incident
     set status = 'resolved', resolved_at = v_now, resolved_by = p_actor, resolution = p_reason, updated_at = v_now,
         announce_at = case when announced_at is not null and coalesce(silenced_until <= v_now, true) then v_now end
   where id = p_id and status = 'open'
  returning * into v_incident;
  if not found then
    if not exists (select from kirby.incident where id = p_id) then
      perform kirby.fail('KB002', format('there is no incident %s', p_id));
    end if;
    return false;
  end if;

  perform kirby.append_job_event(null, v_incident.deployment_id, 'incident_resolved',
            jsonb_build_object('incident', p_id, 'kind', v_incident.kind, 'title', v_incident.title, 'reason', p_reason),
            p_actor);
  if p_actor <> 'kirby' then
    perform kirby.audit(p_actor, 'incident_resolved', 'incident/' || p_id, p_reason => p_reason);
  end if;
  perform kirby.resolve_group(v_incident.told_in);
  perform kirby.resolve_incident(i.id, p_actor, p_reason)
     from kirby.incident i where i.told_in = p_id and i.status = 'open';
  return true;
end;
$$;
