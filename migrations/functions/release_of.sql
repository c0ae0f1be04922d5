-- What a run executes, in words: the name of its release and its version, or the beginning of its hash.
create or replace function kirby.release_of(p_run_id bigint)
  returns text
  language sql
  stable
as $$
  select l.name || ' ' || coalesce(l.version, left(l.sha256, 8))
    from kirby.run r
    join kirby.deployment_version v on v.deployment_id = r.deployment_id and v.version = r.version
    join kirby.release l on l.id = v.release_id
   where r.id = p_run_id;
$$;
