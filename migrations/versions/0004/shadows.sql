-- Runs of another version of a job that handle messages of the past once more, beside: they read "topics" above
-- "after", up to "until", under subscriptions of their own, and what they write stands in topics and states of their
-- own, to be compared. "version" NULL: it is run by hand.
create table kirby.shadow (
  id             integer     generated always as identity primary key,
  environment_id smallint    not null references kirby.environment,
  deployment_id  integer     references kirby.deployment,
  job            text        collate "C" not null,
  version        integer,
  topics         text[]      collate "C" not null check (cardinality(topics) > 0),
  after          bigint      not null,
  until          bigint      not null,
  run_id         bigint,
  actor          text        not null,
  created_at     timestamptz not null default clock_timestamp(),
  stopped_at     timestamptz
);

-- A run that is a shadow stays one, whenever it is run again.
alter table kirby.run add column shadow_id integer references kirby.shadow;

-- Subscriptions of a shadow.
alter table kirby.subscription add column shadow_id integer references kirby.shadow;

-- It has one parameter more: the shorter one would be ambiguous.
drop function if exists
  kirby.queue_run(integer, text, text, timestamptz, smallint, interval, smallint, integer, bigint, integer, smallint, boolean, uuid);
