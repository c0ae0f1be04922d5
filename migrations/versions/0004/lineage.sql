-- Where data comes from and goes to.

-- Projection: how many messages and mutations a job made in an hour, out of which topic into which topic or state
-- (kirby.count_flow). Source: the topic of what was handled; NULL: nothing was. Job and release NULL: by hand, or
-- not known. Replays: as many of them were made while something was delivered again.
create table kirby.flow (
  environment_id smallint    not null references kirby.environment,
  hour           timestamptz not null,
  source_id      integer     references kirby.topic,
  job            text        collate "C",
  release        text        collate "C",
  kind           text        not null check (kind in ('message', 'mutation')),
  place_id       integer     not null,
  made           bigint      not null,
  replays        bigint      not null,
  first_at       timestamptz not null,
  last_at        timestamptz not null,
  unique nulls not distinct (environment_id, hour, source_id, job, release, kind, place_id)
) with (fillfactor = 70);

-- Projection: for each stretch of 5,000 positions in which a topic or a state has something with parents, by its
-- last position: the lowest and the highest parent, and whether there are runs among them; apart for each topic of
-- what was handled (0: not known). No stretch lies in two partitions.
create table kirby.parent_index (
  kind      text    not null check (kind in ('message', 'mutation')),
  place_id  integer not null,
  source_id integer not null default 0,
  position  bigint  not null,
  lowest    bigint  not null,
  highest   bigint  not null,
  runs      boolean not null default false,
  primary key (kind, place_id, source_id, position)
) with (fillfactor = 90);

-- How far both are. Mutations are complete up to "final"; up to "noted" once nobody of "writers" (virtual
-- transactions that were writing mutations when it was the newest position) is at work any more.
create table kirby.flow_counted (
  one       boolean primary key default true check (one),
  messages  bigint  not null default 0,
  mutations bigint  not null default 0,
  final     bigint  not null default 0,
  noted     bigint  not null default 0,
  writers   text[]  not null default '{}'
);
insert into kirby.flow_counted default values;

-- What the code of a job says of itself when it starts to serve a subscription: {"job", "release", "to",
-- "on_replay", "doc", "states"}. One row for each release that ever served it.
create table kirby.declaration (
  environment_id  smallint    not null references kirby.environment,
  subscription_id integer     not null references kirby.subscription on delete cascade,
  job             text        collate "C" not null,
  release         text        collate "C",
  document        jsonb       not null,
  at              timestamptz not null default clock_timestamp(),
  unique nulls not distinct (subscription_id, job, release)
);

-- What people say of a topic, a state or a job of an environment; it goes before what code says of itself.
create table kirby.description (
  environment_id smallint    not null references kirby.environment,
  kind           text        not null check (kind in ('topic', 'state', 'job')),
  name           text        collate "C" not null,
  description    text        not null default '',
  owner          text        not null default '',
  updated_by     text        not null,
  updated_at     timestamptz not null default clock_timestamp(),
  primary key (environment_id, kind, name)
);
