-- Give up on parked messages of a subscription, all or those named: it never gets them again, and what
-- waited for them goes on. They stay in the topic. Returns how many.
create or replace function kirby.drop_parked(
  p_subscription_id integer,
  p_positions bigint[],
  p_actor text
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_subscription kirby.subscription;
  v_position     bigint;
  v_positions    bigint[] := '{}';
begin
  select * into v_subscription from kirby.subscription where id = p_subscription_id;
  for v_position in
    select d.position from kirby.due d
     where d.subscription_id = p_subscription_id and d.parked_at is not null
       and (p_positions is null or d.position = any (p_positions))
     order by d.position
       for update
  loop
    v_positions := v_positions || v_position;
    perform kirby.close_due(v_subscription, v_position);
  end loop;
  perform kirby.audit(p_actor, 'messages_dropped', 'subscription/' || p_subscription_id,
                      p_after => jsonb_build_object('positions', v_positions));
  return cardinality(v_positions);
end;
$$;
