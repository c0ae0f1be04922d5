-- Publish one message in the caller's transaction and return its position; readers are woken when it
-- commits. For psql and any SQL client:  select kirby.publish('orders', '{"a": 1}', key => 'A');
-- NOTIFY inside a transaction serialises commits, so the SDK uses kirby.write and notifies afterwards.
-- KB001: a payload that is NULL, larger than 16 MB, or nested more than 500 deep. KB002, KB003.
create or replace function kirby.publish(
  topic text,
  payload jsonb,
  key text default null,
  headers jsonb default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
  v_new record;
begin
  if payload is null then
    perform kirby.fail('KB001', 'the payload is NULL: pass JSON null (''null''::jsonb) for an empty message');
  elsif octet_length(payload::text) > 16777216 then
    perform kirby.fail('KB001', format('the payload is %s bytes of JSON, the most is 16777216 (16 MB)', octet_length(payload::text)));
  elsif jsonb_path_exists(payload, 'strict $.**{501}') then
    perform kirby.fail('KB001', 'the payload is nested more than 500 deep');
  end if;
  select * into v_who from kirby.principal();
  select * into v_new
    from kirby.append_messages(v_who.environment_id, v_who.run_id, jsonb_build_object(
           topic, jsonb_build_array(jsonb_build_object('v', payload, 'k', key, 'h', headers))));
  perform pg_notify('kirby_topic_' || v_new.topics[1], '');
  return v_new.positions[1];
end;
$$;
