-- Add an exception to schedules: {environment_id (null: in all), scope, target, effect, from_at (default: now), until_at,
-- reason, …}, see kirby.put_exception. It begins now at the earliest. Returns its id. KB001.
create or replace function kirby.add_exception(p_document jsonb, p_actor text)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  insert into kirby.schedule_exception (environment_id, scope, target, created_at)
  values ((p_document ->> 'environment_id')::smallint, p_document ->> 'scope', coalesce(p_document ->> 'target', ''), kirby.now())
  returning id into v_id;
  perform kirby.put_exception(v_id, 'added', p_document || jsonb_build_object(
            'from_at', greatest((p_document ->> 'from_at')::timestamptz, kirby.now())), p_actor);
  return v_id;
end;
$$;
