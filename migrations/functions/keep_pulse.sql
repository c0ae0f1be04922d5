-- The leader's duties have been done, now: if nobody did them for half a minute, that was an outage of Kirby itself (or
-- its database was away, or its clock jumped). One over which something was due is an incident of all environments.
create or replace function kirby.keep_pulse()
  returns void
  language plpgsql
  volatile
as $$
declare
  v_now    timestamptz := kirby.now();
  v_before timestamptz;
  v_due    integer;
  v_id     integer;
begin
  select at into v_before from kirby.pulse for update;
  if not found then
    insert into kirby.pulse (at) values (v_now) on conflict do nothing;
    return;
  end if;
  update kirby.pulse set at = v_now;
  if v_now - v_before < interval '30 seconds' then
    return;
  end if;
  insert into kirby.outage (from_at, to_at) values (v_before, v_now) returning id into v_id;
  perform kirby.append_job_event(null, null, 'outage', jsonb_build_object('from', v_before, 'until', v_now), 'kirby');
  select count(*) into v_due from kirby.deadline where status = 'open' and due_at > v_before and due_at <= v_now;
  if v_due > 0 then
    perform kirby.open_incident(null, null, 'platform', 'outage ' || v_id,
      format('Kirby itself was down for %s (until %s)', kirby.span(v_now - v_before),
             to_char(v_now at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')),
      jsonb_build_object('stage', 'platform', 'outage', v_id, 'from', v_before, 'until', v_now, 'due', v_due));
  end if;
end;
$$;
