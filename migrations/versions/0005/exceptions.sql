-- An exception to schedules. What it says are its versions: every change is a new one, none is ever changed.
create table kirby.schedule_exception (
  id             integer     generated always as identity primary key,
  environment_id smallint    references kirby.environment,  -- null: in every environment
  scope          text        not null check (scope in ('job', 'topic', 'tag', 'environment', 'everything')),
  target         text        collate "C" not null default '',
  created_at     timestamptz not null default clock_timestamp(),
  check ((target = '') = (scope in ('environment', 'everything')))
);

-- In force from from_at until until_at (excluded); a recurring one in its windows only. recorded_at is the
-- database's clock, so what held at any time, as it was known at any time, can be asked for.
create table kirby.exception_version (
  exception_id integer     not null references kirby.schedule_exception,
  version      integer     not null,
  from_at      timestamptz not null,
  until_at     timestamptz not null,
  recurs       text        not null default '',      -- a cron line: when its windows begin
  lasts        real        check (lasts > 0),        -- seconds of each window
  tz           text        not null default 'UTC',   -- of recurs and schedules
  effect       text        not null check (effect in ('pause', 'schedule', 'rate', 'skip', 'manual')),
  schedules    text[]      not null default '{}',    -- schedule: what runs in the place of the deployment's own
  density      real        not null default 0,        -- schedule: how many instants it names in four weeks
  most         integer     check (most > 0),         -- rate: at most so many ticks … ; skip: so many ticks
  per          real        check (per > 0),          -- rate: … in so many seconds
  on_return    text        not null default 'next_tick' check (on_return in ('next_tick', 'run_once', 'catch_up')),
  return_most  integer     not null default 10 check (return_most between 1 and 1000),
  reason       text        not null,
  ticket       text        not null default '',
  actor        text        not null,
  change       text        not null default 'added' check (change in ('added', 'changed', 'ended')),
  recorded_at  timestamptz not null,
  primary key (exception_id, version),
  check (from_at < until_at or change = 'ended')
);

-- All windows of a version, made when it is: nothing has to run for one to begin or to end. noted_at: when a leader saw
-- that it was over, and told the log and people what it had held. reminded_at: when one saw that it was about to be.
create table kirby.exception_window (
  exception_id integer     not null,
  version      integer     not null,
  from_at      timestamptz not null,
  until_at     timestamptz not null check (from_at < until_at),
  noted_at     timestamptz,
  reminded_at  timestamptz,
  primary key (exception_id, version, from_at),
  foreign key (exception_id, version) references kirby.exception_version
);
create index exception_window_until on kirby.exception_window (until_at);
create index exception_window_over  on kirby.exception_window (until_at) where noted_at is null;
create index exception_window_ending on kirby.exception_window (until_at) where reminded_at is null;
