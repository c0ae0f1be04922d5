-- Tokens of programs: for the API, the package index, and as kirby.token of an application.
-- Without an environment one is good in all of them. A run's own has no role.
alter table kirby.token
  alter environment_id drop not null,
  add id           integer     generated always as identity unique,
  add role         text        check (role in ('viewer', 'operator', 'developer', 'admin')),
  add created_by   text        not null default 'kirby',
  add expires_at   timestamptz,
  add last_used_at timestamptz,
  add canary       boolean     not null default false,
  add check (run_id is null or environment_id is not null);
create unique index token_name on kirby.token (name) where role is not null and revoked_at is null;
