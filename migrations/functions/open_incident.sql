-- Open an incident, or count one more of what is open already (the same deployment, kind and fingerprint); returns its
-- id. People are told ten seconds later, so that what belongs together is told together (kirby.announce_incidents);
-- of what p_told_in tells of, they are not told by itself.
--
-- Three of a kind at the most are open beside each other: others count with the newest. The third episode within an hour
-- is flapping: it takes all in and is kept open until an hour has passed without another. A silence of the same holds on.
create or replace function kirby.open_incident(
  p_environment_id smallint,
  p_deployment_id integer,
  p_kind text,
  p_fingerprint text,
  p_title text,
  p_details jsonb default '{}',
  p_run_id bigint default null,
  p_told_in bigint default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now         timestamptz := kirby.now();
  v_open        kirby.incident;
  v_beside      integer := 0;
  v_flapping    boolean := false;
  v_fingerprint text := left(p_fingerprint, 300);
  v_silenced    timestamptz;
  v_incident    kirby.incident;
begin
  if p_deployment_id is not null and p_kind <> 'retrying' then
    select i.*  into v_open
      from kirby.incident i
     where i.environment_id = p_environment_id and i.deployment_id = p_deployment_id and i.kind = p_kind
       and i.status = 'open'
     order by i.fingerprint = v_fingerprint desc, i.flapping desc, i.id desc limit 1;
    select count(*) into v_beside
      from kirby.incident i
     where i.environment_id = p_environment_id and i.deployment_id = p_deployment_id and i.kind = p_kind
       and i.status = 'open';
    if v_open.flapping or v_beside >= 3 then
      v_fingerprint := v_open.fingerprint;
    end if;
    v_flapping := v_beside = 0 and 2 <= (
      select count(*) from kirby.incident i
       where i.deployment_id = p_deployment_id and i.kind = p_kind and i.opened_at > v_now - interval '1 hour');
    select max(i.silenced_until) into v_silenced
      from kirby.incident i
     where i.deployment_id = p_deployment_id and i.kind = p_kind and i.fingerprint = v_fingerprint
       and i.silenced_until > v_now;
  end if;

  insert into kirby.incident as i (environment_id, deployment_id, kind, fingerprint, title, details, run_id, opened_at,
                                   updated_at, silenced_until, announce_at, told_in, flapping)
  values (p_environment_id, p_deployment_id, p_kind, v_fingerprint, left(p_title, 500),
          jsonb_strip_nulls(p_details), p_run_id, v_now, v_now, v_silenced,
          case when p_told_in is null then v_now + interval '10 seconds' end, p_told_in, v_flapping)
      on conflict (environment_id, deployment_id, kind, fingerprint) where status = 'open' do update
     set count = i.count + 1, updated_at = v_now, title = excluded.title, details = i.details || excluded.details,
         run_id = coalesce(excluded.run_id, i.run_id)
  returning * into v_incident;
  perform kirby.append_job_event(null, p_deployment_id,
            case v_incident.count when 1 then 'incident_opened' else 'incident_updated' end,
            jsonb_strip_nulls(jsonb_build_object(
              'incident', v_incident.id, 'run', p_run_id, 'kind', p_kind, 'title', v_incident.title, 'count', v_incident.count,
              'flapping', nullif(v_incident.flapping, false), 'told_in', v_incident.told_in)), 'kirby');
  return v_incident.id;
end;
$$;
