-- Where people hear of incidents: an address as apprise reads it. What is secret in it stands as ${NAME} and is taken
-- from the variables of the process that delivers: no password is stored. No environment: for all.
-- failures: deliveries in a row that went wrong, since failing_since.
create table kirby.channel (
  id             integer     generated always as identity primary key,
  environment_id smallint    references kirby.environment,
  name           text        collate "C" not null check (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  url            text        not null,
  description    text        not null default '',
  failures       integer     not null default 0,
  failing_since  timestamptz,
  delivered_at   timestamptz,
  created_by     text        not null,
  created_at     timestamptz not null default clock_timestamp(),
  unique nulls not distinct (environment_id, name)
);

-- What is told where, in one environment or in all that the channel is for.
-- events: of incidents opened, updated (digests), retried, resolved; of exceptions ending (it will soon be over), over.
-- kinds: of incidents; empty: all, and exceptions.
create table kirby.route (
  id             integer     generated always as identity primary key,
  channel_id     integer     not null references kirby.channel on delete cascade,
  environment_id smallint    references kirby.environment,
  scope          text        not null check (scope in ('job', 'tag', 'everything')),
  target         text        collate "C" not null default '',
  events         text[]      not null default '{opened,resolved,ending,over}'
                 check (events <> '{}' and events <@ '{opened,updated,retried,resolved,ending,over}'),
  kinds          text[]      not null default '{}',
  created_by     text        not null,
  created_at     timestamptz not null default clock_timestamp(),
  check ((target = '') = (scope = 'everything')),
  unique nulls not distinct (channel_id, environment_id, scope, target)
);

-- The last deliveries of each channel, and what was answered. position: of the notice in the topic kirby.notices.
create table kirby.delivery (
  id          bigint      generated always as identity primary key,
  channel_id  integer     not null references kirby.channel on delete cascade,
  position    bigint      not null,
  incident_id bigint,
  event       text        not null,
  attempt     smallint    not null,
  outcome     text        not null check (outcome in ('delivered', 'failed', 'parked')),
  answer      text        not null,
  seconds     real        not null,
  at          timestamptz not null
);
create index delivery_channel on kirby.delivery (channel_id, id);
