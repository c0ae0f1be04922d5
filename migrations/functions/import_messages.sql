-- Publish what was exported, as it was: key, value, headers and order. p_lines: [{"position", "key", "value",
-- "headers", …}, …]. What was imported before is not again: a message is known by its origin; one without by
-- p_source and its number in it (p_first for the first of these). Returns how many are new.
-- KB001: a line that is no envelope. KB003: it comes back to where it was exported. As kirby.append_messages.
create or replace function kirby.import_messages(p_topic text, p_lines jsonb, p_source text, p_first bigint default 1)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who      record;
  v_messages jsonb;
  v_low      bigint;
  v_new      record;
begin
  v_who := kirby.principal();
  if exists (select from jsonb_array_elements(p_lines) as l (line)
              where jsonb_typeof(l.line) <> 'object' or not l.line ? 'value'
                 or jsonb_typeof(l.line -> 'key') not in ('string', 'null')
                 or jsonb_typeof(l.line -> 'headers') not in ('object', 'null')) then
    perform kirby.fail('KB001', 'a line is no envelope: {"key", "value", "headers"}');
  end if;
  select jsonb_agg(jsonb_build_object(
           'v', coalesce(l.line -> 'value', 'null'), 'k', l.line -> 'key', 'h', nullif(l.line -> 'headers', 'null'),
           'i', case when length(l.line #>> '{headers,origin,installation}') <= 64 and jsonb_typeof(l.line #> '{headers,origin,position}') = 'number'
                     then format('origin:%s:%s', l.line #>> '{headers,origin,installation}', l.line #>> '{headers,origin,position}')
                     else format('%s:%s', p_source, p_first + l.n - 1) end) order by l.n)
    into v_messages
    from jsonb_array_elements(p_lines) with ordinality as l (line, n);
  select p.last_value into v_low from kirby.position p;
  v_new := kirby.append_messages(v_who.environment_id, v_who.run_id,
                                 jsonb_build_object(p_topic, jsonb_build_object('m', v_messages)));
  perform pg_notify('kirby_topic_' || v_new.topics[1], '');
  return (select count(distinct n.position) from unnest(v_new.positions) as n (position) where n.position > v_low);
end;
$$;
