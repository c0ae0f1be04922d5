-- What a worker or an application presents as kirby.token. Only its hash is kept.
create table kirby.token (
  hash           bytea       primary key,
  environment_id smallint    not null references kirby.environment,
  run_id         bigint      references kirby.run,
  name           text        not null,
  created_at     timestamptz not null default clock_timestamp(),
  revoked_at     timestamptz
);
create index token_run on kirby.token (run_id) where run_id is not null;

create table kirby.account (
  id            integer     generated always as identity primary key,
  login         text        collate "C" not null unique check (login ~ '^[a-z0-9][a-z0-9._@-]{0,63}$'),
  password_hash text        not null,
  role          text        not null default 'admin'
                check (role in ('viewer', 'operator', 'developer', 'admin')),
  disabled_at   timestamptz,
  created_at    timestamptz not null default clock_timestamp()
);

-- A logged-in browser. The cookie holds the secret, the table its hash.
create table kirby.session (
  hash       bytea       primary key,
  account_id integer     not null references kirby.account on delete cascade,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null
);

-- Failed logins of the last hour, to slow down guessing.
create table kirby.login_failure (
  login   text        not null,
  address text        not null,
  at      timestamptz not null default clock_timestamp()
);
create index login_failure_at on kirby.login_failure (at);
