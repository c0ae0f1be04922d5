-- By when something must have happened; written when its tick is planned, so that no outage can forget it.
-- subject: the replica of a heartbeat, the topic of an output. tick_at: '-infinity' for daemons.
create table kirby.deadline (
  deployment_id integer     not null references kirby.deployment,
  kind          text        not null check (kind in ('start', 'finish', 'heartbeat', 'output')),
  subject       text        not null default '',
  tick_at       timestamptz not null default '-infinity',
  due_at        timestamptz not null,
  status        text        not null default 'open' check (status in ('open', 'met', 'missed', 'void')),
  closed_at     timestamptz,
  primary key (deployment_id, kind, subject, tick_at)
);
create index deadline_due on kirby.deadline (due_at) where status = 'open';

-- One episode of something wrong. fingerprint: what makes two failures the same.
-- announce_at: when it is told to people, unless it is told in a group (told_in); null: nothing is to be told.
create table kirby.incident (
  id              bigint      generated always as identity primary key,
  environment_id  smallint    references kirby.environment,
  deployment_id   integer     references kirby.deployment,
  kind            text        not null check (kind in ('failing', 'missed', 'late', 'stuck', 'silent', 'channel',
                              'storm', 'platform')),
  fingerprint     text        not null default '',
  status          text        not null default 'open' check (status in ('open', 'resolved')),
  title           text        not null,
  details         jsonb       not null default '{}',
  count           integer     not null default 1,
  run_id          bigint,
  opened_at       timestamptz not null,
  updated_at      timestamptz not null,
  resolved_at     timestamptz,
  resolved_by     text,
  acknowledged_at timestamptz,
  acknowledged_by text,
  silenced_until  timestamptz,
  announce_at     timestamptz,
  announced_at    timestamptz,
  digest_at       timestamptz,
  told_in         bigint      references kirby.incident,
  flapping        boolean     not null default false,
  check ((status = 'resolved') = (resolved_at is not null))
);
create unique index incident_open on kirby.incident (environment_id, deployment_id, kind, fingerprint)
  nulls not distinct where status = 'open';
create index incident_announce on kirby.incident (announce_at) where announce_at is not null;
create index incident_recent on kirby.incident (environment_id, opened_at);

-- Failures and successes in a row of each deployment (replicas of daemons beside each other).
create table kirby.streak (
  deployment_id integer  primary key references kirby.deployment,
  failures      integer  not null default 0,
  successes     integer  not null default 0,
  last_run_id   bigint
) with (fillfactor = 80);

-- When no leader did its duties: seen by the one that came back.
create table kirby.outage (
  id      integer     generated always as identity primary key,
  from_at timestamptz not null,
  to_at   timestamptz not null check (from_at < to_at)
);
