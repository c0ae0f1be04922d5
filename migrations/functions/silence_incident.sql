-- Tell nobody of an incident, nor of the same one if it comes back, until p_until (null: they are told again). Audited.
-- KB001: in the past, or more than 90 days away. KB002: no such incident. KB008: it is over.
create or replace function kirby.silence_incident(
  p_id bigint, p_until timestamptz, p_actor text, p_reason text default null
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := kirby.now();
  v_before kirby.incident;
begin
  select * into v_before from kirby.incident where id = p_id for update;
  if not found then
    perform kirby.fail('KB002', format('there is no incident %s', p_id));
  elsif v_before.status = 'resolved' then
    perform kirby.fail('KB008', format('incident %s is over: nothing more is told of it', p_id));
  elsif p_until <= v_now then
    perform kirby.fail('KB001', 'a silence must end in the future');
  elsif p_until > v_now + interval '90 days' then
    perform kirby.fail('KB001', 'a silence lasts 90 days at the most');
  end if;
  update kirby.incident
     set silenced_until = p_until, silenced_by = case when p_until is not null then p_actor end,
         announce_at = case when told_in is not null or (announced_at is not null and acknowledged_at is not null) then null
                         else greatest(v_now, p_until, announce_at) end
   where id = p_id;
  perform kirby.audit(p_actor, 'incident_silenced', 'incident/' || p_id,
                      jsonb_build_object('until', v_before.silenced_until), jsonb_build_object('until', p_until), p_reason);
end;
$$;
