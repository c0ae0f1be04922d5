-- A namespace. Its name is part of a schema name (state_<environment>), so it is a plain word.
create table kirby.environment (
  id         smallint    generated always as identity primary key,
  name       text        collate "C" not null unique check (name ~ '^[a-z][a-z0-9_]{0,31}$'),
  created_at timestamptz not null default clock_timestamp()
);

-- Topic ids stay below 2^24: they share an advisory lock key with a constant (kirby.announce).
create table kirby.topic (
  id             integer     generated always as identity (maxvalue 16777215) primary key,
  environment_id smallint    not null references kirby.environment,
  name           text        collate "C" not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$'),
  lanes          smallint    not null default 8 check (lanes between 1 and 1024),
  created_at     timestamptz not null default clock_timestamp(),
  unique (environment_id, name)
);

create table kirby.subscription (
  id           integer     generated always as identity primary key,
  topic_id     integer     not null references kirby.topic,
  name         text        collate "C" not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$'),
  mode         text        not null default 'ordered' check (mode in ('ordered', 'shared')),
  on_failure   text        not null default 'block' check (on_failure in ('block', 'park')),
  max_attempts smallint    not null default 3 check (max_attempts between 1 and 1000),
  paused_at    timestamptz,
  created_at   timestamptz not null default clock_timestamp(),
  unique (topic_id, name)
);

-- How far each lane of a subscription has been handed out. Few rows, updated in place.
create table kirby.cursor (
  subscription_id integer  not null references kirby.subscription on delete cascade,
  lane            smallint not null,
  position        bigint   not null default 0,
  primary key (subscription_id, lane)
) with (fillfactor = 20);

create sequence kirby.fence as bigint;

-- What a worker holds: a range of one lane, or one message that is delivered again. The fence changes
-- hands with it. upto is as far as it is handed out; attempt counts the deliveries of the message at
-- first. A suspect claim's holder died with it: it is handed out message by message.
create table kirby.claim (
  id              bigint      generated always as identity primary key,
  subscription_id integer     not null references kirby.subscription on delete cascade,
  lane            smallint    not null,
  first           bigint      not null,
  last            bigint      not null check (last >= first),
  run_id          bigint,
  fence           bigint      not null default nextval('kirby.fence'),
  lease_until     timestamptz not null,
  attempt         smallint    not null default 1,
  kind            text        not null default 'range' check (kind in ('range', 'due')),
  suspect         boolean     not null default false,
  upto            bigint      not null check (upto between first and last)
) with (fillfactor = 50);
create index claim_lane on kirby.claim (subscription_id, lane);
create index claim_run  on kirby.claim (run_id) where run_id is not null;

-- Messages that are delivered by themselves: failed ones that are tried again, those of a key that wait
-- behind one (due at infinity, until it is their turn), and parked ones (dead letters), which wait for a
-- person. Those noted as done are kept while a range that covers them may still come again. While one is in a worker's hands its due_at is infinity too; its claim brings it back.
create table kirby.due (
  subscription_id integer     not null references kirby.subscription on delete cascade,
  position        bigint      not null,
  lane            smallint    not null,
  key             text        collate "C",
  attempt         smallint    not null default 0,
  due_at          timestamptz not null,
  parked_at       timestamptz,
  reason          text        not null check (reason in ('failed', 'killed', 'waiting', 'ready', 'done')),
  error           text,
  primary key (subscription_id, position)
);
create index due_done on kirby.due (subscription_id, lane) where reason = 'done';
create index due_key on kirby.due (subscription_id, key, position) where key is not null;
create index due_next on kirby.due (subscription_id, due_at) where parked_at is null;

create table kirby.state (
  id             integer     generated always as identity primary key,
  environment_id smallint    not null references kirby.environment,
  name           text        collate "C" not null check (name ~ '^[a-z][a-z0-9_]{0,49}$'),
  created_at     timestamptz not null default clock_timestamp(),
  unique (environment_id, name)
);

-- Projection: the latest version of each key. A deleted key stays as a tombstone: versions go on.
create table kirby.state_entry (
  state_id   integer     not null references kirby.state,
  key        text        collate "C" not null,
  version    bigint      not null,
  op         text        not null,
  value      jsonb,
  position   bigint      not null,
  run_id     bigint,
  updated_at timestamptz not null,
  primary key (state_id, key)
) with (fillfactor = 70);
