-- Whether a replica is on its way: asked to end, starting, or queued where somebody can take it. One that keeps
-- ending soon after its start is not: nothing waits for it.
create or replace function kirby.is_moving(p_run kirby.run)
  returns boolean
  language sql
  volatile
as $$
  select p_run.cancel_at is not null
      or (p_run.restarts = 0
          and (p_run.status = 'starting'
               or (p_run.status = 'queued'
                   and exists (select from kirby.loads(null, p_run.labels) l where l.runs < l.slots))));
$$;
