-- Write a new version of an exception with its windows, tell both logs, and plan anew what it concerns. The document has
-- the columns of kirby.exception_version; windows: [[from, until], …], without it the one from from_at to until_at.
-- KB001: what it says cannot be.
create or replace function kirby.put_exception(p_id integer, p_change text, p_document jsonb, p_actor text)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_exception kirby.schedule_exception;
  v_before    jsonb;
  v_version   kirby.exception_version;
begin
  select * into v_exception from kirby.schedule_exception where id = p_id for update;
  select to_jsonb(v) into v_before from kirby.exception_version v where v.exception_id = p_id order by v.version desc limit 1;
  v_version := jsonb_populate_record(null::kirby.exception_version,
    '{"recurs": "", "tz": "UTC", "schedules": [], "density": 0, "on_return": "next_tick", "return_most": 10, "ticket": ""}'
    || p_document || jsonb_build_object(
      'exception_id', p_id, 'version', coalesce((v_before ->> 'version')::integer, 0) + 1, 'change', p_change,
      'actor', p_actor, 'recorded_at', kirby.now()));
  if coalesce(v_version.reason, '') !~ '\S' then
    perform kirby.fail('KB001', 'an exception needs a reason: those who wonder why nothing runs will read it');
  elsif v_version.until_at is null then
    perform kirby.fail('KB001', 'an exception needs an end (until): it can be extended while it lasts');
  elsif p_change <> 'ended' and v_version.until_at <= greatest(v_version.from_at, kirby.now()) then
    perform kirby.fail('KB001', format('it would end at %s, before it begins', v_version.until_at));
  elsif v_version.until_at > kirby.now() + interval '366 days' then
    perform kirby.fail('KB001', 'an exception lasts a year at the most: it can be extended while it lasts');
  end if;

  insert into kirby.exception_version select (v_version).*;
  insert into kirby.exception_window (exception_id, version, from_at, until_at, noted_at, reminded_at)
  select p_id, v_version.version, (w ->> 0)::timestamptz, (w ->> 1)::timestamptz, o.noted_at, o.reminded_at
    from jsonb_array_elements(coalesce(p_document -> 'windows',
           jsonb_build_array(jsonb_build_array(v_version.from_at, v_version.until_at)))) w
    left join kirby.exception_window o  -- what was told is not told again
      on o.exception_id = p_id and o.version = v_version.version - 1
     and o.from_at = (w ->> 0)::timestamptz and o.until_at = (w ->> 1)::timestamptz
   where (w ->> 0)::timestamptz < (w ->> 1)::timestamptz;

  perform kirby.append_job_event(null, null, 'exception_' || p_change,
            to_jsonb(v_version) || to_jsonb(v_exception) - 'id' - 'created_at', p_actor);
  perform kirby.audit(p_actor, 'exception_' || p_change, 'exception/' || p_id, v_before, to_jsonb(v_version), v_version.reason);
  perform kirby.plan_again(kirby.deployments_in(v_exception.environment_id, v_exception.scope, v_exception.target));
  perform pg_notify('kirby_run', '');
  return v_version.version;
end;
$$;
