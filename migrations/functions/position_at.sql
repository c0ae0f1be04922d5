-- The first position of a topic whose message was recorded at a moment or after it; without a topic: of
-- any. If there is none yet: one beyond what may be read. No message of the topic that was or will be
-- recorded at or after the moment lies before it (kirby.first_since).
--   select kirby.position_at('2027-03-28 14:00', 'orders');
-- KB001: no moment. KB002: no such topic. KB003, KB007.
create or replace function kirby.position_at("when" timestamptz, topic text default null)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_topic integer;
begin
  if "when" is null then
    perform kirby.fail('KB001', 'the moment is NULL: say from when on');
  end if;
  select * into v_who from kirby.bearer();
  if topic is not null then
    select t.id into v_topic from kirby.topic t
     where t.environment_id = v_who.environment_id and t.name = position_at.topic;
    if not found then
      perform kirby.fail('KB002', format('there is no topic %s in this environment', topic));
    end if;
  end if;
  return kirby.first_since(v_topic, "when");
end;
$$;
