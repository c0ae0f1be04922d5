-- Change what a parked message says to this subscription, once it is tried again; the message in the
-- topic stays as it is. KB002: no such parked message. KB001: not a payload.
create or replace function kirby.edit_parked(
  p_subscription_id integer,
  p_position bigint,
  p_payload jsonb,
  p_actor text,
  p_reason text default null
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before jsonb;
begin
  if p_payload is null then
    perform kirby.fail('KB001', 'the payload is NULL: pass JSON null (''null''::jsonb) for an empty message');
  end if;
  select coalesce(d.payload, m.payload) into v_before
    from kirby.due d
    join kirby.subscription s on s.id = d.subscription_id
    join kirby.message m on m.topic_id = s.topic_id and m.lane = d.lane and m.position = d.position
   where d.subscription_id = p_subscription_id and d.position = p_position and d.parked_at is not null
     for update of d;
  if not found then
    perform kirby.fail('KB002', format('no message is parked at position %s', p_position));
  end if;
  update kirby.due set payload = p_payload
   where subscription_id = p_subscription_id and position = p_position;
  perform kirby.audit(p_actor, 'message_edited', 'subscription/' || p_subscription_id,
                      p_before => jsonb_build_object('position', p_position, 'payload', v_before),
                      p_after => jsonb_build_object('position', p_position, 'payload', p_payload),
                      p_reason => p_reason);
end;
$$;
