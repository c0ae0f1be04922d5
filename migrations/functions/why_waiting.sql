-- Why a queued run has not been claimed, in words for a person.
create or replace function kirby.why_waiting(p_run kirby.run)
  returns text
  language plpgsql
  volatile
as $$
declare
  v_now    timestamptz := kirby.now();
  v_before bigint;
  v_all    record;
begin
  if p_run.not_before > v_now then
    return format('it is put off until %s', to_char(p_run.not_before at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'));
  end if;
  select count(*) as alive, count(*) filter (where p_run.labels <@ s.labels) as fit,
         count(*) filter (where p_run.labels <@ s.labels and s.draining_at is null) as open,
         coalesce(sum(s.slots) filter (where p_run.labels <@ s.labels and s.draining_at is null), 0) as slots,
         coalesce(sum((select count(*) from kirby.run r
                        where r.supervisor_id = s.id and r.status in ('starting', 'running')))
                  filter (where p_run.labels <@ s.labels and s.draining_at is null), 0) as busy
    into v_all
    from kirby.supervisor s
   where s.ended_at is null and s.lease_until > v_now;
  if v_all.alive = 0 then
    return 'no supervisor is alive';
  elsif v_all.fit = 0 then
    return format('no living supervisor has the label%s %s', case when cardinality(p_run.labels) > 1 then 's' else '' end,
                  array_to_string(p_run.labels, ', '));
  elsif v_all.open = 0 then
    return 'the supervisors that could take it are being drained';
  end if;
  if p_run.serial then
    select min(r.id) into v_before from kirby.run r
     where r.deployment_id = p_run.deployment_id and r.status in ('starting', 'running') and r.shadow_id is null;
    if v_before is not null then
      return format('run %s of the same job has not ended', v_before);
    end if;
  end if;
  if v_all.busy >= v_all.slots then
    return format('all %s slots of %s are taken', v_all.slots,
                  case v_all.open when 1 then 'the supervisor' else v_all.open || ' supervisors' end);
  end if;
  return 'no supervisor has claimed it yet';
end;
$$;
