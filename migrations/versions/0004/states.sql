-- States at any moment: what is counted of them, snapshots, columns and indexes, feeds, compaction.

-- Every mutation of the state above this position was recorded at this moment or later, so a moment leads to a
-- position (kirby.keep_states). The moments grow with the positions.
create table kirby.moment (
  state_id integer     not null references kirby.state,
  position bigint      not null,
  at       timestamptz not null,
  primary key (state_id, position)
) with (fillfactor = 90);
create index moment_at on kirby.moment (state_id, at, position);

-- Mutations are counted up to a position: none at or below it will ever come.
create table kirby.mutations_counted (
  one      boolean primary key default true check (one),
  position bigint  not null default 0
);
insert into kirby.mutations_counted default values;

-- How many mutations a state ever had as far as they are counted, and the latest moment recorded in them.
create table kirby.state_count (
  state_id  integer     primary key references kirby.state,
  mutations bigint      not null,
  latest    timestamptz not null
) with (fillfactor = 50);

-- What a state was at a position, so that an old moment need not be put together from the beginning.
-- Mutations and latest: what was counted of it up to there.
create table kirby.state_snapshot (
  state_id  integer     not null references kirby.state,
  position  bigint      not null,
  keys      bigint      not null,
  mutations bigint      not null,
  latest    timestamptz not null,
  taken_at  timestamptz not null default clock_timestamp(),
  primary key (state_id, position)
);

-- The entries of a snapshot, those of deleted keys left out; position is that of the mutation.
create table kirby.state_snapshot_entry (
  state_id    integer     not null,
  snapshot    bigint      not null,
  key         text        collate "C" not null,
  version     bigint      not null,
  value       jsonb       not null,
  position    bigint      not null,
  run_id      bigint,
  recorded_at timestamptz not null,
  primary key (state_id, snapshot, key)
);

-- Feed: every change is also a message of topic state.<name> (kirby.open_feed).
alter table kirby.state add column feed boolean not null default false;

drop function if exists kirby.append_mutations(smallint, bigint, jsonb);
drop function if exists kirby.get_entries(text, text[], text, text, integer);

-- Columns of a state's views: what its values have at a path, as a type.
create table kirby.state_column (
  state_id integer  not null references kirby.state,
  name     text     collate "C" not null check (name ~ '^[a-z][a-z0-9_]{0,49}$'),
  type     text     not null check (type in ('integer', 'number', 'text', 'boolean', 'time', 'date', 'json')),
  path     text[]   not null,
  indexed  boolean  not null default false,
  n        smallint not null,
  primary key (state_id, name)
);

-- Indexed: kirby.state_index_<id> has the values of its indexed columns. Followed: whoever changes it has more to do.
alter table kirby.state
  add column indexed  boolean not null default false,
  add column followed boolean not null generated always as (feed or indexed) stored;

-- Who is just computing a cached value (kirby.fly). It need not outlive a crash.
create unlogged table kirby.flight (
  state_id integer     not null references kirby.state,
  key      text        collate "C" not null,
  holder   text        not null,
  until    timestamptz not null,
  primary key (state_id, key)
) with (fillfactor = 50);

-- Compaction, which a state has if somebody asked for it: of the versions that are older than keep (whole days, UTC) the
-- last one of each key and day stays, the others go; NULL: none goes any more. Versions up to looked were looked at, and so
-- many of them removed. From exact_from on nothing is missing, and nothing right before what is there.
create table kirby.compaction (
  state_id   integer     primary key references kirby.state,
  keep       interval    check (keep >= interval '1 day'),
  actor      text        not null,
  reason     text        not null default '',
  set_at     timestamptz not null default clock_timestamp(),
  looked     bigint      not null default 0,
  removed    bigint      not null default 0,
  exact_from bigint      not null default 0
) with (fillfactor = 50);

-- Days (by the moment at which they end) of which versions are removed: how many, the positions of the first and the last
-- of them, and of the last version that stayed behind one of them; when it was done.
create table kirby.compacted_day (
  state_id integer     not null references kirby.state,
  day      timestamptz not null,
  versions bigint      not null,
  first    bigint      not null,
  last     bigint      not null,
  kept     bigint      not null,
  at       timestamptz not null,
  primary key (state_id, day)
) with (fillfactor = 50);
