-- A run failed and is tried again: told to the channels that ask for retries, if there are any, as an incident of its own
-- that is over when the next attempt has ended.
create or replace function kirby.tell_retry(p_run kirby.run)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_id   bigint;
  v_next bigint;
begin
  if not exists (select from kirby.route r where 'retried' = any (r.events)) then
    return;
  end if;
  select max(r.id) into v_next from kirby.run r
   where r.deployment_id = p_run.deployment_id and r.id > p_run.id and r.retry_of = p_run.id;
  v_id := kirby.open_incident(
    p_run.environment_id, p_run.deployment_id, 'retrying', 'run ' || v_next,
    format('attempt %s failed and is tried again: %s', p_run.attempt,
           concat_ws(': ', p_run.reason, nullif(kirby.last_error(p_run.id), ''))),
    jsonb_build_object('stage', 'run', 'attempt', p_run.attempt, 'status', p_run.status), p_run.id);
  update kirby.incident set announce_at = kirby.now() where id = v_id and told_in is null;
end;
$$;
