-- Whether a run ended, or will be found to have ended, because its supervisor did.
create or replace function kirby.host_is_lost(p_run_id bigint)
  returns boolean
  language sql
  stable
as $$
  select exists (select from kirby.run r join kirby.supervisor s on s.id = r.supervisor_id
                  where r.id = p_run_id
                    and (r.status = 'lost' or s.ended_at is not null or s.lease_until <= kirby.now()));
$$;
