-- The windows of a version that have begun, none of them longer than p_until: [[from, until], …].
create or replace function kirby.windows_begun(p_version kirby.exception_version, p_until timestamptz)
  returns jsonb
  language sql
  volatile
as $$
  select coalesce(jsonb_agg(jsonb_build_array(w.from_at, least(w.until_at, p_until)) order by w.from_at), '[]')
    from kirby.exception_window w
   where w.exception_id = p_version.exception_id and w.version = p_version.version
     and w.from_at < least(kirby.now(), p_until);
$$;
