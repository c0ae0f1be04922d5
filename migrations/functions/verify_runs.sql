-- Runs that are not what their events say (kirby.record_run). An event and the moments of its run are taken one
-- right after the other, so those may differ by 5 s. Runs that were queued before what the log of job events keeps
-- are passed over. Progress is compared with its newest event.
create or replace function kirby.verify_runs()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  with said as (
    select e.run_id,
           (array_agg(e.data) filter (where e.type in ('run_queued', 'run_skipped')))[1] as queued,
           (array_agg(substr(e.type, 5) order by e.position desc)
              filter (where e.type not in ('run_cancel_requested', 'run_progress')))[1] as last,
           (array_agg(e.data order by e.position desc) filter (where e.type not in ('run_queued', 'run_progress')))[1] as data,
           (array_agg(e.data ->> 'reason' order by e.position desc)
              filter (where e.type <> 'run_queued' and e.data ->> 'reason' is not null))[1] as reason,
           (array_agg(e.data ->> 'supervisor_id' order by e.position desc)
              filter (where e.data ->> 'supervisor_id' is not null))[1] as supervisor_id,
           (array_agg(e.data ->> 'destination' order by e.position desc)
              filter (where e.data ->> 'destination' is not null))[1] as destination,
           (array_agg(e.data ->> 'pid' order by e.position desc) filter (where e.data ->> 'pid' is not null))[1] as pid,
           (array_agg(e.data order by e.position desc) filter (where e.type = 'run_progress'))[1] as progress,
           max(e.recorded_at) filter (where e.type = 'run_started') as started_at,
           max(e.recorded_at) filter (where e.type = 'run_cancel_requested') as cancel_at,
           max(e.recorded_at) filter (where e.type in ('run_succeeded', 'run_failed', 'run_cancelled', 'run_skipped',
                                                       'run_timed_out', 'run_lost')) as ended_at
      from kirby.job_event e
     where e.run_id is not null and e.type like 'run\_%'
     group by e.run_id
  ), truth as (
    select s.run_id, q.deployment_id, q.environment_id, q.version,
           case s.last when 'claimed' then 'starting' when 'started' then 'running' else s.last end as status,
           q.cause, q.actor, q.tick_at, q.replica, q.attempt, q.restarts, q.retry_of, q.not_before, q.queued_at,
           s.started_at, s.ended_at, s.cancel_at, s.supervisor_id::uuid, s.pid::integer,
           (s.data ->> 'exit_code')::integer as exit_code, (s.data ->> 'signal')::integer as signal, s.reason,
           coalesce(q.priority, 0::smallint) as priority, coalesce(q.labels, '{}') as labels,
           coalesce(q.canary, false) as canary, coalesce(q.serial, false) as serial,
           coalesce(q.turn, q.not_before) as turn, coalesce(q.losses, 0::smallint) as losses,
           s.destination::uuid,
           (s.progress ->> 'progress')::real as progress, s.progress ->> 'text' as progress_text,
           (s.data ->> 'peak_memory')::bigint as peak_memory,
           (s.data ->> 'cpu_seconds')::double precision as cpu_seconds,
           coalesce((s.data ->> 'out_of_memory')::boolean, false) as out_of_memory
      from said s
     cross join lateral jsonb_populate_record(null::kirby.run, s.queued) q
     where s.queued is not null
  )
  select format('run %s', coalesce(t.run_id, r.id)), to_jsonb(t) - 'run_id', to_jsonb(r) - 'id' - 'progress_at'
    from truth t
    full join kirby.run r on r.id = t.run_id
    left join kirby.log_retention l on l.log = 'job_event'
   where ((t.deployment_id, t.environment_id, t.version, t.status, t.cause, t.actor, t.tick_at, t.replica,
           t.attempt, t.restarts, t.retry_of, t.not_before, t.queued_at, t.supervisor_id, t.pid, t.exit_code,
           t.signal, t.reason, t.started_at is null, t.ended_at is null, t.cancel_at is null, t.priority, t.labels,
           t.canary, t.serial, t.turn, t.losses, t.destination, t.progress, t.progress_text, t.peak_memory, t.cpu_seconds,
           t.out_of_memory)
          is distinct from
          (r.deployment_id, r.environment_id, r.version, r.status, r.cause, r.actor, r.tick_at, r.replica,
           r.attempt, r.restarts, r.retry_of, r.not_before, r.queued_at, r.supervisor_id, r.pid, r.exit_code,
           r.signal, r.reason, r.started_at is null, r.ended_at is null, r.cancel_at is null, r.priority, r.labels,
           r.canary, r.serial, r.turn, r.losses, r.destination, r.progress, r.progress_text, r.peak_memory, r.cpu_seconds,
           r.out_of_memory)
       or greatest(abs(extract(epoch from t.started_at - r.started_at)),
                   abs(extract(epoch from t.ended_at - r.ended_at)),
                   abs(extract(epoch from t.cancel_at - r.cancel_at))) > 5)
     and not (t.run_id is null and coalesce(r.queued_at < kirby.now() - l.keep, false));
$$;
