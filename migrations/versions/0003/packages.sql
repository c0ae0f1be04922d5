-- What was published here as to PyPI. A name that stands here is never looked up upstream.
create table kirby.package (
  id         integer     generated always as identity primary key,
  name       text        collate "C" not null unique check (name ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
  created_by text        not null,
  created_at timestamptz not null default clock_timestamp()
);

create table kirby.package_file (
  id              integer     generated always as identity primary key,
  package_id      integer     not null references kirby.package,
  version         text        not null,
  filename        text        collate "C" not null unique,
  kind            text        not null check (kind in ('wheel', 'sdist')),
  sha256          text        not null references kirby.file,
  requires_python text,
  requires_dist   text[]      not null default '{}',
  entry_points    jsonb       not null default '{}',
  metadata        bytea,
  metadata_sha256 text,
  summary         text        not null default '',
  yanked_at       timestamptz,
  yanked_reason   text,
  uploaded_by     text        not null,
  uploaded_at     timestamptz not null default clock_timestamp()
);
create index package_file_version on kirby.package_file (package_id, version);
