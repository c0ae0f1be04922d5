-- What handlers did outside of the database, each once (kirby.begin_effect). "key" goes to whoever did it, so that
-- it is not done twice there either. Begun and not confirmed: nobody knows whether it happened. "again": a person
-- looked, it did not happen. "subscription_id" and "position": in whose hands, and of which message; NULL for one
-- with a key of its own outside of handlers. "of_message": the key is made of the message, so that it may be forgotten
-- with it (kirby.forget_effects). "attempt" is the one under way, so that it knows itself.
create table kirby.effect (
  id              bigint      generated always as identity primary key,
  environment_id  smallint    not null references kirby.environment,
  name            text        collate "C" not null check (length(name) between 1 and 200),
  key             text        collate "C" not null check (length(key) between 1 and 200),
  subscription_id integer     references kirby.subscription on delete set null,
  position        bigint,
  run_id          bigint,
  status          text        not null default 'begun' check (status in ('begun', 'confirmed', 'again')),
  idempotent      boolean     not null,
  attempt         uuid        not null,
  times           integer     not null default 1,
  begun_at        timestamptz not null,
  confirmed_at    timestamptz,
  of_message      boolean     not null default false,
  resolved_by     text,
  resolved_at     timestamptz,
  unique (environment_id, name, key)
);
create index effect_of on kirby.effect (subscription_id, position);
create index effect_over on kirby.effect (subscription_id, position) where of_message and status = 'confirmed';
create index effect_in_doubt on kirby.effect (begun_at) where status = 'begun';
