-- The windows of exceptions to a deployment that reach into [p_from, p_until], as they were known at p_known_at: of each
-- exception what its last version by then says. A pure function of rows that never change.
create or replace function kirby.windows_of(
  p_deployment_id integer,
  p_from timestamptz,
  p_until timestamptz,
  p_known_at timestamptz
)
  returns table (
    exception_id integer, version integer, scope text, target text, effect text, schedules text[], tz text, density real,
    most integer, per real, from_at timestamptz, until_at timestamptz, on_return text, return_most integer, reason text,
    actor text
  )
  language sql
  stable
as $$
  select x.id, v.version, x.scope, x.target, v.effect, v.schedules, v.tz, v.density, v.most, v.per, w.from_at, w.until_at,
         v.on_return, v.return_most, v.reason, v.actor
    from kirby.exception_window w
    join kirby.exception_version v on v.exception_id = w.exception_id and v.version = w.version
    join kirby.schedule_exception x on x.id = v.exception_id
   where w.until_at > p_from and w.from_at <= p_until and v.recorded_at <= p_known_at
     and not exists (select from kirby.exception_version l
                      where l.exception_id = v.exception_id and l.version > v.version and l.recorded_at <= p_known_at)
     and kirby.is_concerned(p_deployment_id, x.environment_id, x.scope, x.target)
   order by w.from_at, x.id;
$$;
