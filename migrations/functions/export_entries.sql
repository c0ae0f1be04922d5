-- The next entries of an export of a state as it was at its moment (kirby.entries_before), after a key, masked, a line of JSON each:
-- {"key", "value"}. After: the key to go on after, which may be none that may leave; NULL at the end.
-- KB001: the state is not part of it, its mask drops the key, or it was compacted meanwhile. Else as kirby.own_export.
create or replace function kirby.export_entries(
  p_export bigint,
  p_state text,
  p_after text default null,
  p_max integer default 20000,
  p_actor text default null,
  out lines text,
  out entries integer,
  out "after" text
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_export kirby.export := kirby.own_export(p_export, p_actor);
  v_part   jsonb   := v_export.plan -> 'states' -> p_state;
  v_deny   boolean := v_part -> 'deny';
  v_masked boolean := v_deny or v_part -> 'masks' <> '{}';
  v_state  integer;
begin
  if v_part is null then
    perform kirby.fail('KB001', format('state %s is not part of export %s', p_state, p_export));
  end if;
  select s.id into v_state from kirby.state s where s.environment_id = v_export.environment_id and s.name = p_state;
  select string_agg('{"key": ' || coalesce(case when v_masked then (d.masked -> 'key')::text else to_json(d.key)::text end, 'null')
                    || ', "value": ' || coalesce(case when v_masked then d.masked -> 'value' else d.value end, 'null')::text
                    || '}' || chr(10), '' order by d.key),
         count(*), case when count(*) = p_max then max(d.key) end
    into lines, entries, "after"
    from (select e.key collate "C" as key, e.value,
                 case when v_masked then kirby.masked_document(jsonb_build_object('key', e.key, 'value', e.value),
                                                               v_part -> 'masks', v_deny, v_export.salt) end as masked
            from kirby.entries_before(v_state, (v_export.plan ->> 'at')::bigint, p_after, p_max) e) d;
  perform kirby.check_begins(v_state, (v_export.plan ->> 'at')::bigint);  -- after it: else a piece could come in between
  if entries > 0 then
    update kirby.export x
       set sent = x.sent || jsonb_build_object('state ' || p_state, coalesce((x.sent ->> ('state ' || p_state))::bigint, 0) + entries)
     where x.id = p_export;
  end if;
end;
$$;
