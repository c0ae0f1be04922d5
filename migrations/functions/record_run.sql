-- Take a run one step further: an event, the projection, and what follows from an end, in one
-- transaction. Steps: run_claimed {supervisor_id}, run_started {pid}, run_cancel_requested {reason, destination},
-- run_succeeded, run_failed {exit_code | signal, reason}, run_cancelled, run_timed_out, run_lost
-- {reason}; an end may carry {peak_memory (bytes), cpu_seconds, out_of_memory}. KB002: no such run.
-- KB008: not possible from where the run is.
-- p_supervisor_id: only if the run is this supervisor's (a fenced one that comes back writes nothing).
create or replace function kirby.record_run(
  p_run_id bigint,
  p_type text,
  p_data jsonb default '{}',
  p_actor text default 'kirby',
  p_supervisor_id uuid default null
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run    kirby.run;
  v_status text;
begin
  select * into v_run from kirby.run where id = p_run_id for update;
  if not found then
    perform kirby.fail('KB002', format('there is no run %s', p_run_id));
  elsif v_run.supervisor_id <> p_supervisor_id then
    perform kirby.fail('KB005', format('run %s belongs to another supervisor now', p_run_id));
  end if;

  v_status := case
    when p_type = 'run_claimed' and v_run.status = 'queued' then 'starting'
    when p_type = 'run_started' and v_run.status = 'starting' then 'running'
    when p_type = 'run_cancel_requested' and v_run.status in ('starting', 'running') then v_run.status
    when p_type = 'run_cancelled' and v_run.status in ('queued', 'starting', 'running') then 'cancelled'
    when p_type = 'run_succeeded' and v_run.status = 'running' then 'succeeded'
    when p_type = 'run_timed_out' and v_run.status = 'running' then 'timed_out'
    when p_type in ('run_failed', 'run_lost') and v_run.status in ('starting', 'running')
      then substr(p_type, 5)
  end;
  if v_status is null then
    perform kirby.fail('KB008', format('%s is not possible: run %s is %s', p_type, p_run_id, v_run.status));
  end if;

  perform kirby.append_job_event(p_run_id, v_run.deployment_id, p_type, p_data, p_actor);
  update kirby.run r
     set status = v_status,
         supervisor_id = coalesce((p_data ->> 'supervisor_id')::uuid, r.supervisor_id),
         pid = coalesce((p_data ->> 'pid')::integer, r.pid),
         exit_code = (p_data ->> 'exit_code')::integer,
         signal = (p_data ->> 'signal')::integer,
         reason = coalesce(p_data ->> 'reason', r.reason),
         destination = coalesce((p_data ->> 'destination')::uuid, r.destination),
         peak_memory = (p_data ->> 'peak_memory')::bigint,
         cpu_seconds = (p_data ->> 'cpu_seconds')::double precision,
         out_of_memory = coalesce((p_data ->> 'out_of_memory')::boolean, false),
         started_at = case p_type when 'run_started' then kirby.now() else r.started_at end,
         cancel_at = case p_type when 'run_cancel_requested' then kirby.now() else r.cancel_at end,
         ended_at = case when v_status in ('queued', 'starting', 'running') then null else kirby.now() end
   where id = p_run_id
  returning * into v_run;
  if v_run.ended_at is not null then
    perform kirby.follow_up(v_run);
  end if;
  perform kirby.watch_run(v_run);
end;
$$;
