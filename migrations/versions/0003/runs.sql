-- turn: the run's place in the queue. serial: it does not start beside another run of its deployment.
-- losses: how often its host, or its memory, was what ended it (that costs no attempt). destination: the supervisor
-- that a daemon's replica is to move to, or was to come to.
alter table kirby.run
  add priority      smallint not null default 0,
  add labels        text[]   not null default '{}',
  add canary        boolean  not null default false,
  add serial        boolean  not null default false,
  add turn          timestamptz,
  add losses        smallint not null default 0,
  add destination   uuid,
  add progress      real     check (progress between 0 and 1),
  add progress_text text,
  add progress_at   timestamptz,
  add peak_memory   bigint,
  add cpu_seconds   double precision,
  add out_of_memory boolean  not null default false,
  add check ((ended_at is null) = (status in ('queued', 'starting', 'running')));
update kirby.run set turn = not_before;
alter table kirby.run alter turn set not null;

drop index kirby.run_replica, kirby.run_queue;
create unique index run_replica on kirby.run (deployment_id, canary, replica)
  where replica is not null and status in ('queued', 'starting', 'running');
create unique index run_serial on kirby.run (deployment_id) where serial and status in ('starting', 'running');
create index run_queue on kirby.run (turn, id) where status = 'queued';
create index run_busy  on kirby.run (deployment_id) where status in ('starting', 'running');

-- draining_at: it gets no more runs. stopping: and ends when it has none left. protocol: which version of
-- the functions it was made for.
alter table kirby.supervisor
  add labels      text[]  not null default '{}',
  add version     text    not null default '',
  add protocol    integer not null default 1,
  add draining_at timestamptz,
  add stopping    boolean not null default false;

-- Functions with more parameters than before: the shorter ones would be ambiguous.
drop function if exists
  kirby.queue_run(integer, text, text, timestamptz, smallint, interval, smallint, integer, bigint, integer),
  kirby.retry_run(bigint, text, boolean),
  kirby.register_supervisor(uuid, text, text, integer, integer, interval);
