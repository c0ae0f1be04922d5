-- Open the subscription of a shadow to a topic, before the first message that it is to handle. What fails is parked
-- at once: nobody waits for it. Returns NULL for a topic that is not of the shadow; else the last position as well.
-- KB002: no such shadow in this environment. KB004: it was stopped. KB001, KB003.
create or replace function kirby.open_shadow(
  p_shadow_id integer,
  p_topic text,
  p_name text,
  p_mode text,
  out subscription_id integer,
  out topic_id integer,
  out until bigint
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who    record;
  v_shadow kirby.shadow;
  v_found  record;
begin
  v_who := kirby.principal();
  select * into v_shadow from kirby.shadow h
   where h.id = p_shadow_id and h.environment_id = v_who.environment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no shadow %s in this environment', p_shadow_id));
  elsif v_shadow.stopped_at is not null then
    perform kirby.fail('KB004', format('shadow %s was stopped', p_shadow_id));
  elsif p_topic <> all (v_shadow.topics) then
    return;
  end if;
  select * into v_found from kirby.subscribe(p_topic, p_name || '.shadow-' || p_shadow_id, p_mode, 'park', 1);
  subscription_id := v_found.subscription_id;
  topic_id := v_found.topic_id;
  until := v_shadow.until;
  update kirby.subscription s set shadow_id = p_shadow_id
   where s.id = open_shadow.subscription_id and s.shadow_id is null;
  if found then  -- it is new: nobody has claimed of it
    update kirby.cursor c
       set position = v_shadow.after,
           delivered = c.delivered + (select count(*) from kirby.message m
                                       where m.topic_id = open_shadow.topic_id and m.lane = c.lane
                                         and m.position > c.position and m.position <= v_shadow.after)
     where c.subscription_id = open_shadow.subscription_id and c.position < v_shadow.after;
  end if;
end;
$$;
