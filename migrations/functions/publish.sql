-- Publish one message in the caller's transaction and return its position; readers are woken when it
-- commits. For psql and any SQL client:  select kirby.publish('orders', '{"a": 1}', key => 'A');
-- deliver_at: not to be handed out before; expires_at: not to be handed out after; id: an id of your own,
-- publishing it again in this topic does nothing and returns the position of the first.
-- NOTIFY inside a transaction serialises commits, so the SDK uses kirby.write and notifies afterwards.
-- KB001: a payload that is NULL, larger than 16 MB, or nested more than 500 deep; a bad id. KB002, KB003.
create or replace function kirby.publish(
  topic text,
  payload jsonb,
  key text default null,
  headers jsonb default null,
  deliver_at timestamptz default null,
  expires_at timestamptz default null,
  id text default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who     record;
  v_new     record;
  v_message jsonb;
begin
  if payload is null then
    perform kirby.fail('KB001', 'the payload is NULL: pass JSON null (''null''::jsonb) for an empty message');
  elsif octet_length(payload::text) > 16777216 then
    perform kirby.fail('KB001', format('the payload is %s bytes of JSON, the most is 16777216 (16 MB)', octet_length(payload::text)));
  elsif jsonb_path_exists(payload, 'strict $.**{501}') then
    perform kirby.fail('KB001', 'the payload is nested more than 500 deep');
  elsif length(id) not between 1 and 200 then
    perform kirby.fail('KB001', format('an id has 1 to 200 characters, not %s', length(id)));
  end if;
  select * into v_who from kirby.principal();

  v_message := jsonb_build_object('v', payload, 'k', key, 'h', headers);
  if num_nonnulls(deliver_at, expires_at, id) > 0 then
    v_message := v_message || jsonb_strip_nulls(jsonb_build_object('d', deliver_at, 'x', expires_at, 'i', id));
    select * into v_new from kirby.append_messages(v_who.environment_id, v_who.run_id,
      jsonb_build_object(topic, jsonb_build_object('m', jsonb_build_array(v_message))));
  else
    select * into v_new from kirby.append_messages(v_who.environment_id, v_who.run_id,
      jsonb_build_object(topic, jsonb_build_array(v_message)));
  end if;
  perform pg_notify('kirby_topic_' || v_new.topics[1], '');
  return v_new.positions[1];
end;
$$;
