alter table kirby.run
  add priority      smallint not null default 0,
  add labels        text[]   not null default '{}',
  add canary        boolean  not null default false,
  add progress      real     check (progress between 0 and 1),
  add progress_text text,
  add progress_at   timestamptz,
  add peak_memory   bigint,
  add cpu_seconds   double precision,
  add out_of_memory boolean  not null default false;

drop index kirby.run_replica, kirby.run_queue;
create unique index run_replica on kirby.run (deployment_id, canary, replica)
  where replica is not null and status in ('queued', 'starting', 'running');
create index run_queue on kirby.run (priority desc, not_before, id) where status = 'queued';

alter table kirby.supervisor
  add labels      text[]  not null default '{}',
  add version     text    not null default '',
  add draining_at timestamptz;
