-- A release is a script (one file), or a package: its own wheel among the files of its lock.
alter table kirby.release
  add kind    text not null default 'script' check (kind in ('script', 'package')),
  add version text,
  add origin  text not null default '',
  add jobs    jsonb not null default '[]',
  alter source drop not null;

-- Everything that the virtualenv of a release is made of: it can be built again without an index.
create table kirby.release_file (
  release_id integer not null references kirby.release,
  filename   text    collate "C" not null,
  sha256     text    not null references kirby.file,
  primary key (release_id, filename)
);
create index release_file_sha256 on kirby.release_file (sha256);
