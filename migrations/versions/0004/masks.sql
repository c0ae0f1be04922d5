-- Which installation this is: what is exported here says so, and is refused when it comes back.
create table kirby.installation (
  id      uuid        primary key default gen_random_uuid(),
  made_at timestamptz not null default clock_timestamp()
);
create unique index installation_one on kirby.installation ((true));
insert into kirby.installation default values;

-- What an export makes of a topic or a state. Rules is a tree over {"key", "value", "headers"}:
-- {"in": {"value": {"in": {"email": {"rule": "hash"}, "*": …}}}}. Deny: what no rule names is dropped.
create table kirby.mask (
  topic_id   integer     unique references kirby.topic on delete cascade,
  state_id   integer     unique references kirby.state on delete cascade,
  deny       boolean     not null default false,
  rules      jsonb       not null default '{}',
  changed_at timestamptz not null default clock_timestamp(),
  check (num_nonnulls(topic_id, state_id) = 1)
);

-- What left this installation: its plan (filters, ranges and masks, which do not change on the way) and how
-- much of it was sent. Salt: what hashes and fakes of it are made with, forgotten at its end.
create table kirby.export (
  id             bigint      generated always as identity primary key,
  environment_id smallint    not null references kirby.environment,
  actor          text        not null,
  plan           jsonb       not null,
  salt           bytea,
  sent           jsonb       not null default '{}',
  begun_at       timestamptz not null default clock_timestamp(),
  ended_at       timestamptz
);
create index export_open on kirby.export (begun_at) where ended_at is null;

-- What came into an environment from elsewhere, and how far: progress is {"<topic>": {"position", "messages"}}.
create table kirby.pull (
  id             bigint      generated always as identity primary key,
  environment_id smallint    not null references kirby.environment,
  actor          text        not null,
  asked          jsonb       not null,
  export         jsonb       not null,
  progress       jsonb       not null default '{}',
  begun_at       timestamptz not null default clock_timestamp(),
  ended_at       timestamptz
);
create index pull_open on kirby.pull (environment_id) where ended_at is null;
