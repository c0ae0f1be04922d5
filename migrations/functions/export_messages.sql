-- The next messages of an export of a topic, after a position, masked, a line of JSON each:
-- {"position", "key", "value", "headers", "recorded_at"}; headers.origin says where they come from. At most
-- p_max, 500 of a lane, and about a megabyte (as it is stored) besides the last one. Position: how far it
-- came, to go on after; done: there are no more. How many were sent is kept with the export.
-- KB001: the topic is not part of it. Else as kirby.own_export.
create or replace function kirby.export_messages(
  p_export bigint,
  p_topic text,
  p_after bigint,
  p_max integer default null,
  p_actor text default null,
  out lines text,
  out messages integer,
  out "position" bigint,
  out done boolean
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
  set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_export kirby.export := kirby.own_export(p_export, p_actor);
  v_part   jsonb   := v_export.plan -> 'topics' -> p_topic;
  v_after  bigint  := greatest(p_after, (v_part ->> 'after')::bigint);
  v_end    bigint  := (v_part ->> 'upto')::bigint;
  v_last   bigint  := (v_part ->> 'last')::bigint;
  v_upto   bigint  := v_end;
  v_deny   boolean := v_part -> 'deny';
  v_masked boolean := v_deny or v_part -> 'masks' <> '{}';
  v_since  timestamptz := v_export.plan ->> 'since';
  v_until  timestamptz := v_export.plan ->> 'until';
  v_keys   text[];
  v_lanes  smallint[];
  v_origin jsonb;
  v_topic  kirby.topic;
  v_there  integer;
begin
  if v_part is null then
    perform kirby.fail('KB001', format('topic %s is not part of export %s', p_topic, p_export));
  end if;
  select * into v_topic from kirby.topic t where t.environment_id = v_export.environment_id and t.name = p_topic;
  if v_after < v_last then
    v_upto := least(v_last, v_end);
  else
    v_after := greatest(v_after, (v_part ->> 'counted')::bigint);
  end if;
  if jsonb_typeof(v_export.plan -> 'keys') = 'array' then
    v_keys := array(select jsonb_array_elements_text(v_export.plan -> 'keys'));
    v_lanes := array(select distinct unnest(kirby.lanes_of(v_topic.id, k.key)) from unnest(v_keys) as k (key));
  else
    v_lanes := array(select generate_series(0, v_topic.lanes - 1));
  end if;
  v_origin := jsonb_build_object('installation', v_export.plan -> 'installation', 'environment', v_export.plan -> 'environment',
                                 'topic', p_topic, 'exported', v_export.plan -> 'exported', 'by', v_export.plan -> 'by');

  -- 500 of each lane, as far as all lanes are known: beyond the last one of a lane that has more, some may be missing.
  with stretch as materialized (
    select m.*
      from unnest(v_lanes) as l (lane)
     cross join lateral (
           select m.position, m.lane, m.key, m.payload, m.headers, m.recorded_at
             from kirby.message m
            where m.topic_id = v_topic.id and m.lane = l.lane and m.position > v_after and m.position <= v_upto
            order by m.position
            limit 500) m
  ), known as (
    select coalesce(min(f.last), greatest(v_after, v_upto)) as upto
      from (select max(s.position) as last from stretch s group by s.lane having count(*) = 500) f
  ), wanted as (
    select s.*, k.upto, row_number() over w as n, sum(coalesce(pg_column_size(s.payload), 0)) over w as bytes
      from stretch s
      join known k on s.position <= k.upto
     where (v_since is null or s.recorded_at >= v_since) and (v_until is null or s.recorded_at < v_until)
       and (v_keys is null or s.key = any (v_keys))
    window w as (order by s.position)
  ), sent as (
    select w.position, w.recorded_at,
           case when v_masked then kirby.masked_document(
                  jsonb_build_object('key', w.key, 'value', w.payload, 'headers', w.headers - 'origin'),
                  v_part -> 'masks', v_deny, v_export.salt) end as masked,
           w.key, w.payload, w.headers
      from wanted w
     where (w.n = 1 or w.bytes <= 1000000) and w.n <= coalesce(p_max, 2147483647)
  ), line as (
    select s.position,
           '{"position": ' || s.position
           || ', "key": ' || coalesce(case when v_masked then (s.masked -> 'key')::text else to_json(s.key)::text end, 'null')
           || ', "value": ' || coalesce(case when v_masked then s.masked -> 'value' else s.payload end, 'null')::text
           || ', "headers": ' || (
                case when jsonb_typeof(h.headers) = 'object' then h.headers else '{}' end || jsonb_build_object('origin',
                  v_origin || jsonb_build_object('position', s.position)
                  || case when s.headers ? 'origin' then jsonb_build_object('from', s.headers -> 'origin') else '{}' end))::text
           || ', "recorded_at": ' || to_json(s.recorded_at)::text || '}' || chr(10) as text
      from sent s
     cross join lateral (select case when v_masked then s.masked -> 'headers' else s.headers end as headers) h
  )
  select string_agg(l.text, '' order by l.position), count(*), (select count(*) from wanted),
         case when count(*) < (select count(*) from wanted) then max(l.position) else (select k.upto from known k) end
    into lines, messages, v_there, "position"
    from line l;

  done := "position" >= v_end or "position" >= v_last and greatest("position", (v_part ->> 'counted')::bigint) >= v_end;
  if messages > 0 then
    update kirby.export x
       set sent = x.sent || jsonb_build_object(p_topic, coalesce((x.sent ->> p_topic)::bigint, 0) + messages)
     where x.id = p_export;
  end if;
end;
$$;
