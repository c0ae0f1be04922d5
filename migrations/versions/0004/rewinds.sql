-- Subscriptions that are moved back in their topics.

-- What is delivered again: messages of a topic above "after", up to "until" (NULL: all that was handed out), of
-- these keys and to these subscriptions (NULL: all). The plan is what was shown before it began. Rate_at: when
-- the next replay would be on time (GCRA). Position: of the log when it began, before any state was set back.
-- Inexact: it may set states back although they do not come out exact. Waits: for what, while it is prepared or
-- aborted; waits_for: the newest message of each lane ({s, l, p}: subscription, lane, position).
create table kirby.rewind (
  id             bigint      generated always as identity primary key,
  environment_id smallint    not null references kirby.environment,
  topic_id       integer     not null references kirby.topic,
  after          bigint      not null,
  until          bigint,
  keys           text[]      collate "C",
  subscriptions  text[]      collate "C",
  states         boolean     not null default false,
  inexact        boolean     not null default false,
  rate           double precision check (rate > 0),
  rate_at        timestamptz,
  status         text        not null default 'planned'
                 check (status in ('planned', 'preparing', 'running', 'paused', 'aborting', 'done', 'aborted')),
  plan           jsonb       not null,
  actor          text        not null,
  reason         text        not null default '',
  position       bigint,
  waits          text[]      not null default '{}',
  waits_for      jsonb       not null default '[]',
  created_at     timestamptz not null default clock_timestamp(),
  started_at     timestamptz,
  ended_at       timestamptz
);
create index rewind_open on kirby.rewind (id) where status in ('preparing', 'running', 'paused', 'aborting');

-- The part of each lane of each subscription that comes again, and where the lane goes on after it: upto. Passed
-- and delivered: the ranks of after and of upto (kirby.rank); messages lie in the part, of which so many are replays.
-- Done: how many of those were settled, once it has ended.
create table kirby.rewind_lane (
  rewind_id       bigint   not null references kirby.rewind,
  subscription_id integer  not null references kirby.subscription on delete cascade,
  lane            smallint not null,
  after           bigint   not null,
  until           bigint   not null,
  upto            bigint   not null,
  passed          bigint   not null,
  delivered       bigint   not null,
  messages        bigint   not null,
  replays         bigint   not null,
  done            bigint,
  primary key (subscription_id, lane, rewind_id)
);
create index rewind_lane_of on kirby.rewind_lane (rewind_id);

-- Messages in such a part that had never been settled: when they come they come for the first time.
create table kirby.rewind_fresh (
  subscription_id integer  not null references kirby.subscription on delete cascade,
  lane            smallint not null,
  position        bigint   not null,
  primary key (subscription_id, position)
);

-- Keys of states that were set back, and the version that each had just before (0: none).
create table kirby.rewind_state (
  rewind_id bigint  not null references kirby.rewind,
  state_id  integer not null references kirby.state,
  key       text    collate "C" not null,
  version   bigint  not null,
  primary key (rewind_id, state_id, key)
);

-- What had never been settled when a rewind of keys set states back: if it is aborted, it comes again.
create table kirby.rewind_unsettled (
  rewind_id       bigint   not null references kirby.rewind,
  subscription_id integer  not null references kirby.subscription on delete cascade,
  position        bigint   not null,
  primary key (rewind_id, subscription_id, position)
);

-- For which rewind a lane has messages to deliver again, and for which one a claim, or a message that is
-- delivered by itself, is delivered again.
alter table kirby.cursor add column rewind_id bigint;
alter table kirby.claim  add column rewind_id bigint;
alter table kirby.due    add column rewind_id bigint;
create index due_rewind on kirby.due (rewind_id) where rewind_id is not null;

alter table kirby.subscription
  add column on_replay text not null default 'process' check (on_replay in ('process', 'ignore', 'divert', 'dry_run'));

-- Dense: nothing of the lane between the first and the last message of a batch was left out.
alter type kirby.batch add attribute dense boolean;
drop function if exists kirby.claim(integer, integer, interval, boolean);
drop function if exists kirby.settle(bigint, bigint, jsonb, jsonb, bigint, integer, interval, jsonb);
