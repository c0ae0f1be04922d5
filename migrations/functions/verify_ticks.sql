-- Ticks and runs that do not belong together: a queued tick has its run, a run by schedule has its tick, a
-- skipped one an event that says why (its last one, as far as the log of job events goes back).
create or replace function kirby.verify_ticks()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('deployment %s at %s', t.deployment_id, t.at),
         jsonb_build_object('run', case when t.status = 'queued' then 'scheduled for then' end),
         jsonb_build_object('run', t.run_id, 'status', t.status)
    from kirby.tick t
    left join kirby.run r on r.id = t.run_id and r.deployment_id = t.deployment_id and r.tick_at = t.at
   where (t.status = 'queued') <> (r.id is not null) or (t.run_id is null) <> (r.id is null)
   union all
  select format('run %s', r.id), jsonb_build_object('tick', r.tick_at), null::jsonb
    from kirby.run r
   where r.cause in ('schedule', 'after', 'return')
     and not exists (select from kirby.tick t where t.deployment_id = r.deployment_id and t.run_id = r.id)
   union all
  select format('deployment %s at %s', t.deployment_id, t.at), jsonb_build_object('skipped', e.reason),
         jsonb_build_object('skipped', t.reason)
    from kirby.tick t
    left join (select distinct on (s.deployment_id, s.at) s.deployment_id, s.at, s.reason
                 from (select j.deployment_id, (j.data ->> 'at')::timestamptz as at, j.data ->> 'reason' as reason, j.position
                         from kirby.job_event j
                        where j.type = 'tick_skipped') s
                order by s.deployment_id, s.at, s.position desc) e on e.deployment_id = t.deployment_id and e.at = t.at
   where t.status = 'skipped' and e.reason is distinct from t.reason
     and t.at >= coalesce((select kirby.now() - l.keep from kirby.log_retention l where l.log = 'job_event'), '-infinity');
$$;
