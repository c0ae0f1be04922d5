-- Tell people what is due to be told of incidents, each in its time: the beginning ten seconds after it (what belongs
-- together is told together, kirby.gather_storms), digests while it is open and nobody has acknowledged it (after an
-- hour, then ever more rarely, once a day at the least), the end if the beginning was told. A silenced one is told nothing.
-- Returns how many were told. Notices are messages of this transaction: told and noted as told are one.
create or replace function kirby.announce_incidents()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := kirby.now();
  v_incident kirby.incident;
  v_event    text;
  v_told     integer := 0;
begin
  perform kirby.gather_storms();
  for v_incident in
    select * from kirby.incident where announce_at <= v_now order by announce_at, id limit 500 for update skip locked
  loop
    if v_incident.silenced_until > v_now then
      update kirby.incident set announce_at = case status when 'open' then silenced_until end where id = v_incident.id;
      continue;
    end if;
    v_event := case when v_incident.status = 'resolved' then 'resolved'
                 when v_incident.kind = 'retrying' then 'retried'
                 when v_incident.announced_at is null then 'opened'
                 else 'updated' end;
    update kirby.incident
       set announced_at = case v_event when 'retried' then announced_at else coalesce(announced_at, v_now) end,
           announce_at = case when v_event in ('opened', 'updated') and acknowledged_at is null
             then v_now + least(greatest(interval '1 hour', (v_now - opened_at) / 2), interval '1 day') end
     where id = v_incident.id;
    perform kirby.tell_incident(v_incident, v_event);
    perform kirby.resolve_group(v_incident.id);
    v_told := v_told + 1;
  end loop;
  return v_told;
end;
$$;
