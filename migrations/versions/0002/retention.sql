-- The life of the log: what is counted, when it was recorded, how long it is kept.

-- How many messages a lane ever had up to a position (kirby.count_messages), and how many of those
-- retention removed.
create table kirby.topic_count (
  topic_id integer  not null references kirby.topic,
  lane     smallint not null,
  position bigint   not null,
  messages bigint   not null,
  gone     bigint   not null default 0 check (gone between 0 and messages),
  primary key (topic_id, lane)
) with (fillfactor = 50);

-- All topics are counted up to a position, but for the late ones, each up to its own.
create table kirby.counted (
  one      boolean     primary key default true check (one),
  position bigint      not null default 0,
  late     integer[]   not null default '{}',
  late_to  bigint[]    not null default '{}',
  at       timestamptz not null default clock_timestamp()
);
insert into kirby.counted default values;

-- For each stretch of 5,000 positions that has messages, by its last position: the latest and the earliest
-- moment that was recorded in it. No stretch lies in two partitions. Complete as far as messages are counted.
create table kirby.time_index (
  position bigint      primary key,
  latest   timestamptz not null,
  earliest timestamptz not null
) with (fillfactor = 90);

-- Where the log was, minute by minute for a day: how fast positions are taken.
create table kirby.pace (
  at       timestamptz primary key,
  position bigint      not null
);

-- How long messages are kept (NULL: for ever). Every message up to gone_to is removed; what was recorded
-- after gone_at is complete.
create table kirby.topic_retention (
  topic_id    integer     primary key references kirby.topic,
  keep        interval    check (keep > interval '0'),
  even_unread boolean     not null default false,
  gone_to     bigint      not null default 0,
  gone_at     timestamptz
);

-- The same for the other logs. Mutations of states are history and have no policy.
create table kirby.log_retention (
  log  text     primary key check (log in ('job_event', 'log_line', 'secret_access', 'audit_event')),
  keep interval check (keep >= interval '1 day')
);
insert into kirby.log_retention (log, keep)
values ('job_event', null), ('log_line', '90 days'), ('secret_access', null), ('audit_event', null);

-- How far a table without an order of its own has been looked through for rows that may go.
create table kirby.sweep (
  name  text   primary key,
  block bigint not null default 0
);
