-- What is open of a deployment, of these kinds, is over; flapping ones wait for their hour (kirby.watch_flapping).
-- p_fingerprint, p_run_id: only that one. p_tick_at: only what was found before or at that tick. Returns how many.
create or replace function kirby.resolve_incidents(
  p_deployment_id integer,
  p_environment_id smallint,
  p_kinds text[],
  p_reason text,
  p_fingerprint text default null,
  p_run_id bigint default null,
  p_tick_at timestamptz default null
)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_id    bigint;
  v_count integer := 0;
begin
  for v_id in
    select i.id from kirby.incident i
     where i.environment_id = p_environment_id and i.deployment_id = p_deployment_id and i.kind = any(p_kinds)
       and i.status = 'open' and not i.flapping
       and i.fingerprint = coalesce(p_fingerprint, i.fingerprint)
       and (p_run_id is null or i.run_id = p_run_id)
       and (p_tick_at is null or coalesce((i.details ->> 'tick_at')::timestamptz <= p_tick_at, true))
     order by i.id
  loop
    v_count := v_count + kirby.resolve_incident(v_id, 'kirby', p_reason)::integer;
  end loop;
  return v_count;
end;
$$;
