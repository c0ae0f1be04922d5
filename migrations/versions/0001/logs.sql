-- The clock of everything: every event of every log takes its position here.
create sequence kirby.position as bigint minvalue 1 cache 1;
select nextval('kirby.position');  -- so that last_value is always a position that was taken

-- The six logs (DESIGN §4.1). Append-only, cut into ranges of positions.

create table kirby.message (
  position    bigint      not null,
  topic_id    integer     not null,
  lane        smallint    not null,
  key         text        collate "C",
  payload     jsonb       not null,
  headers     jsonb,
  run_id      bigint,
  parents     bigint[],
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (topic_id, lane, position)
) partition by range (position);
create index message_position    on kirby.message using brin (position);
create index message_recorded_at on kirby.message using brin (recorded_at);

create table kirby.job_event (
  position      bigint      not null,
  run_id        bigint,
  deployment_id integer,
  type          text        not null,
  data          jsonb       not null default '{}',
  actor         text        not null,
  recorded_at   timestamptz not null default clock_timestamp(),
  primary key (position)
) partition by range (position);
create index job_event_run        on kirby.job_event (run_id, position) where run_id is not null;
create index job_event_deployment on kirby.job_event (deployment_id, position);

create table kirby.log_line (
  position bigint      not null,
  run_id   bigint      not null,
  stream   text        not null check (stream in ('stdout', 'stderr', 'kirby')),
  level    text        not null,
  text     text        not null,
  at       timestamptz not null,
  primary key (run_id, position)
) partition by range (position);
create index log_line_at on kirby.log_line using brin (at);

create table kirby.state_mutation (
  position    bigint      not null,
  state_id    integer     not null,
  key         text        collate "C" not null,
  version     bigint      not null,
  op          text        not null check (op in ('set', 'delete')),
  value       jsonb,
  run_id      bigint,
  parents     bigint[],
  headers     jsonb,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (state_id, key, position)
) partition by range (position);
create index state_mutation_position on kirby.state_mutation using brin (position);

create table kirby.secret_access (
  position    bigint      not null,
  secret_id   integer     not null,
  version     integer,
  actor       text        not null,
  run_id      bigint,
  verb        text        not null,
  allowed     boolean     not null,
  reason      text,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (position)
) partition by range (position);

create table kirby.audit_event (
  position    bigint      not null,
  actor       text        not null,
  verb        text        not null,
  object      text        not null,
  before      jsonb,
  after       jsonb,
  reason      text,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (position)
) partition by range (position);
create index audit_event_object on kirby.audit_event (object, position);
