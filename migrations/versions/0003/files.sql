-- Files by content, in pieces, so that a large one is stored and read without holding it in memory.
create table kirby.file (
  sha256     text        primary key check (sha256 ~ '^[0-9a-f]{64}$'),
  size       bigint      not null check (size >= 0),
  created_at timestamptz not null default clock_timestamp()
);

create table kirby.file_chunk (
  sha256  text    not null references kirby.file on delete cascade,
  number  integer not null,
  content bytea   not null,
  primary key (sha256, number)
);
alter table kirby.file_chunk alter column content set storage external;  -- wheels are compressed already

insert into kirby.file (sha256, size, created_at)
select sha256, octet_length(content), created_at from kirby.artifact;
insert into kirby.file_chunk (sha256, number, content)
select sha256, 0, content from kirby.artifact;
alter table kirby.release drop constraint release_sdk_sha256_fkey;
alter table kirby.release add foreign key (sdk_sha256) references kirby.file;
drop table kirby.artifact;
