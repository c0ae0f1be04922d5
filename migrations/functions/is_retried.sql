-- Whether Kirby runs a run again that ended so (kirby.follow_up does it): then its failure is not the last word.
create or replace function kirby.is_retried(p_run kirby.run, p_version kirby.deployment_version)
  returns boolean
  language sql
  stable
as $$
  select case
           when p_run.cancel_at is not null then false
           when p_run.status = 'lost' or (p_run.status = 'failed' and p_run.out_of_memory)
             then p_version.rerun_lost and p_run.losses < 3
           else p_run.status in ('failed', 'timed_out') and p_run.attempt < p_version.max_attempts
         end;
$$;
