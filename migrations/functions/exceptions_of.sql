-- The exceptions in force for a deployment at a moment, the most restrictive first: pause, manual, skip, schedule (of
-- several the one that names the fewest instants), rate. As they are known at p_known_at: without it, for the past what
-- was known then, for the future what is known now.
create or replace function kirby.exceptions_of(
  p_deployment_id integer, p_at timestamptz, p_known_at timestamptz default null
)
  returns table (
    exception_id integer, version integer, scope text, target text, effect text, schedules text[], tz text, density real,
    most integer, per real, from_at timestamptz, until_at timestamptz, on_return text, return_most integer, reason text,
    actor text
  )
  language sql
  volatile
as $$
  select w.*
    from (select coalesce(p_known_at, least(p_at, kirby.now())) as at) known,
         kirby.windows_of(p_deployment_id, p_at, p_at, known.at) w
   order by array_position(array['pause', 'manual', 'skip', 'schedule', 'rate'], w.effect), w.density, w.exception_id;
$$;
