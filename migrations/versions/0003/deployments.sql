-- How a job is to be run. Times are in seconds; null: no limit.
alter table kirby.deployment_version
  add entry               text     not null default '',
  add command             text[],
  add priority            smallint not null default 0 check (priority between -100 and 100),
  add labels              text[]   not null default '{}',
  add concurrency         text     not null default 'default'
                          check (concurrency in ('default', 'allow', 'queue', 'skip', 'replace')),
  add retry_pause         real     not null default 10 check (retry_pause >= 0),
  add timeout             real     check (timeout > 0),
  add grace               real     not null default 10 check (grace >= 0),
  add no_progress_timeout real     check (no_progress_timeout > 0),
  add rerun               text     not null default 'original' check (rerun in ('original', 'current')),
  add needs               jsonb    not null default '{}',
  add rolled_back_to      integer,
  add promoted_from       integer,
  add promoted_env        text,
  add deployed            boolean  not null default true;  -- false: a canary that was not promoted

-- A version that serves a share of the keys of a daemon's streams beside the deployed one.
-- Rolling: its replicas of older versions are replaced, one after the other.
alter table kirby.deployment
  add rolling         boolean  not null default false,
  add canary_version  integer,
  add canary_share    real check (canary_share > 0 and canary_share < 1),
  add canary_replicas smallint not null default 1,
  add check ((canary_version is null) = (canary_share is null));
alter table kirby.subscription add canary_share real not null default 0;
