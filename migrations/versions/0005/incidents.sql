-- By when something must have happened; written when its tick is planned, so that no outage can forget it.
-- subject: the replica of a daemon, the topic of an output. tick_at: '-infinity' for what is looked at again and again
-- (daemons, outputs): such a row stays open, its due_at moves on, and closed_at is when an exception was last seen to hold
-- it back (output), or since when nothing was queued for it (start). No references: a row goes with its tick.
create table kirby.deadline (
  deployment_id integer     not null,
  kind          text        not null check (kind in ('start', 'finish', 'heartbeat', 'output')),
  subject       text        not null default '',
  tick_at       timestamptz not null default '-infinity',
  due_at        timestamptz not null,
  status        text        not null default 'open' check (status in ('open', 'met', 'missed', 'void')),
  closed_at     timestamptz,
  primary key (deployment_id, kind, subject, tick_at)
);
create index deadline_due    on kirby.deadline (due_at) where status = 'open';
create index deadline_closed on kirby.deadline (closed_at) where status <> 'open';

-- One episode of something wrong. fingerprint: what makes two failures the same. announce_at: when people are told of
-- it next (its beginning, a digest, its end); null: nothing is to be told. told_in: the incident that tells of it.
-- announced_at: when its beginning was told. flapping: it came and went too often, and is kept open for an hour.
create table kirby.incident (
  id              bigint      generated always as identity primary key,
  environment_id  smallint    references kirby.environment,
  deployment_id   integer     references kirby.deployment,
  kind            text        not null check (kind in ('failing', 'missed', 'late', 'stuck', 'silent', 'retrying',
                              'channel', 'storm', 'platform')),
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
  resolution      text,
  acknowledged_at timestamptz,
  acknowledged_by text,
  silenced_until  timestamptz,
  silenced_by     text,
  announce_at     timestamptz,
  announced_at    timestamptz,
  told_in         bigint      references kirby.incident,
  flapping        boolean     not null default false,
  check ((status = 'resolved') = (resolved_at is not null))
);
create unique index incident_open on kirby.incident (environment_id, deployment_id, kind, fingerprint)
  nulls not distinct where status = 'open';
create index incident_announce on kirby.incident (announce_at) where announce_at is not null;
create index incident_recent   on kirby.incident (environment_id, opened_at);
create index incident_episode  on kirby.incident (deployment_id, kind, opened_at);
create index incident_told_in  on kirby.incident (told_in) where told_in is not null;
create index incident_silenced on kirby.incident (deployment_id, kind) where silenced_until is not null;
create index incident_flapping on kirby.incident (updated_at) where flapping and status = 'open';

-- The timeline of an incident.
create index job_event_incident on kirby.job_event (((data ->> 'incident')::bigint), position)
  where type in ('incident_opened', 'incident_updated', 'incident_told', 'incident_resolved');

-- Failures and successes in a row of each deployment that has failed (a daemon's: of the replica that failed last).
create table kirby.streak (
  deployment_id integer  primary key references kirby.deployment,
  failures      integer  not null default 0,
  successes     integer  not null default 0,
  last_run_id   bigint
) with (fillfactor = 80);

-- When a leader last did its duties: one row. When none did: seen by the one that came back.
create table kirby.pulse (
  id boolean     primary key default true check (id),
  at timestamptz not null
) with (fillfactor = 50);

create table kirby.outage (
  id      integer     generated always as identity primary key,
  from_at timestamptz not null,
  to_at   timestamptz not null check (from_at < to_at)
);
create index outage_to on kirby.outage (to_at);
