-- Where people hear of incidents: an address as apprise reads it. What is secret in it stands as ${NAME} and is taken
-- from the variables of the process that delivers: no password is stored. No environment: for all.
create table kirby.channel (
  id             integer     generated always as identity primary key,
  environment_id smallint    references kirby.environment,
  name           text        collate "C" not null check (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  url            text        not null,
  description    text        not null default '',
  created_by     text        not null,
  created_at     timestamptz not null default clock_timestamp(),
  tested_at      timestamptz,
  unique nulls not distinct (environment_id, name)
);

-- What is told where. events: opened, updated (digests), retried, resolved.
create table kirby.route (
  id             integer     generated always as identity primary key,
  channel_id     integer     not null references kirby.channel on delete cascade,
  environment_id smallint    references kirby.environment,
  scope          text        not null check (scope in ('job', 'tag', 'environment', 'everything')),
  target         text        collate "C" not null default '',
  events         text[]      not null default '{opened,resolved}',
  kinds          text[]      not null default '{}',  -- of incidents; empty: all
  created_by     text        not null,
  created_at     timestamptz not null default clock_timestamp(),
  check ((target = '') = (scope in ('environment', 'everything'))),
  unique nulls not distinct (channel_id, environment_id, scope, target)
);
