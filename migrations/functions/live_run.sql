-- The oldest run of a deployment that has not ended (one that waits for its next attempt too), or null. Shadows do
-- not count.
create or replace function kirby.live_run(p_deployment_id integer)
  returns bigint
  language sql
  volatile
as $$
  select min(r.id) from kirby.run r
   where r.deployment_id = p_deployment_id and r.replica is null and r.shadow_id is null
     and (r.status = 'queued' or r.status in ('starting', 'running'));
$$;
