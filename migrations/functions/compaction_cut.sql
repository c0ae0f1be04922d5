-- Up to where compaction goes by now: the end of the last day (UTC) that is older than a state keeps all versions.
-- NULL: nowhere.
create or replace function kirby.compaction_cut(p_keep interval)
  returns timestamptz
  language sql
  stable
as $$
  select date_trunc('day', kirby.now() at time zone 'UTC' - p_keep) at time zone 'UTC';
$$;
