-- Messages that are not to be delivered before, or after, a moment.
alter table kirby.message
  add column deliver_at timestamptz,
  add column expires_at timestamptz;

-- Its lanes lie in bands: those of band 0 are served first. Messages above lanes_from lie in its lanes,
-- older ones in fewer (kirby.lane_change has all of them). Sifted: some messages are delayed, expire, or
-- were taken back, so who claims has to look for those.
alter table kirby.topic
  add column bands      smallint not null default 1 check (bands between 1 and 16),
  add column old_lanes  smallint,
  add column lanes_from bigint   not null default 0,
  add column sifted     boolean  not null default false,
  add check (lanes % bands = 0);

-- From this position on a topic has so many lanes.
create table kirby.lane_change (
  topic_id integer  not null references kirby.topic,
  position bigint   not null,
  before   smallint not null,
  lanes    smallint not null,
  primary key (topic_id, position)
);

-- Messages that were published under an id of the producer's own: the same id again is the same message.
create table kirby.produced (
  topic_id integer not null,
  id       text    collate "C" not null check (length(id) between 1 and 200),
  lane     smallint not null,
  position bigint  not null,
  primary key (topic_id, id)
);

-- Messages that were taken back before they were delivered.
create table kirby.retracted (
  topic_id integer not null,
  position bigint  not null,
  primary key (topic_id, position)
);

-- Which message of a topic of results answers which task.
create table kirby.result (
  topic_id integer not null,
  task     bigint  not null,
  lane     smallint not null,
  position bigint  not null,
  primary key (topic_id, task)
);

-- Limits: NULL is none. Rates are messages a second; rate_at is when the next message would be on time
-- (GCRA, the generic cell rate algorithm of ATM).
alter table kirby.subscription
  add column max_in_flight integer          check (max_in_flight > 0),
  add column rate          double precision check (rate > 0),
  add column rate_at       timestamptz,
  add column key_in_flight integer          check (key_in_flight > 0),
  add column key_rate      double precision check (key_rate > 0);

create table kirby.key_rate (
  subscription_id integer     not null references kirby.subscription on delete cascade,
  key             text        collate "C" not null,
  rate_at         timestamptz not null,
  primary key (subscription_id, key)
) with (fillfactor = 50);

-- Delivered: how many messages of the lane were handed out up to the position.
alter table kirby.cursor add column delivered bigint not null default 0;
update kirby.cursor c
   set delivered = (select count(*) from kirby.message m
                     where m.topic_id = s.topic_id and m.lane = c.lane and m.position <= c.position)
  from kirby.subscription s where s.id = c.subscription_id;

-- Claims come and go all the time. While an old snapshot is open, none of those that are gone leaves its
-- indexes, and none of the old versions of a cursor. So both are looked up from their newest end: a
-- cursor by its position, and what is claimed in a lane through its cursor; claims from a floor on, below
-- which there are none (kirby.raise_claim_floor).
alter table kirby.cursor add column claim_id bigint;
update kirby.cursor c
   set claim_id = (select max(o.id) from kirby.claim o
                    where o.subscription_id = c.subscription_id and o.lane = c.lane and o.kind = 'range');
alter table kirby.cursor drop constraint cursor_pkey;
create unique index cursor_newest on kirby.cursor (subscription_id, lane, position);
drop index kirby.claim_lane;
create index claim_newest on kirby.claim (subscription_id, id);
create table kirby.claim_floor (
  subscription_id integer not null references kirby.subscription on delete cascade,
  id              bigint  not null,
  primary key (subscription_id, id)
);

-- Holder: the session that has it in its hands. A fence is not only a number: claims are not flushed, so
-- after a crash the sequences may give the same numbers again, while somebody still holds the old ones.
alter table kirby.claim
  add column holder text,
  alter column fence set default nextval('kirby.fence') * 1048576 + floor(random() * 1048576)::bigint;

-- Payload: what a person made of a parked message. Delayed: not before due_at; queued: due, and its key is
-- still in a range in somebody's hands; limited: its key is over its rate.
alter table kirby.due
  add column payload jsonb,
  drop constraint due_reason_check,
  add constraint due_reason_check
      check (reason in ('failed', 'killed', 'waiting', 'ready', 'done', 'delayed', 'queued', 'limited'));

drop function if exists kirby.publish(text, jsonb, text, jsonb);
drop function if exists kirby.forget_done(integer, smallint);
drop function if exists kirby.claim(integer, integer, interval);
drop function if exists kirby.lane_is_taken(kirby.subscription, smallint);
drop function if exists kirby.open_claim(kirby.subscription, kirby.claim);
drop function if exists kirby.batch_of(kirby.claim, integer);

-- What is handed out of a claim: arrays of the same length, payloads as one JSON document.
create type kirby.batch as (
  claim_id    bigint,
  fence       bigint,
  attempt     smallint,
  positions   bigint[],
  keys        text[],
  payloads    json,
  headers     json,
  recorded_at timestamptz[],
  run_ids     bigint[],
  parents     json
);
