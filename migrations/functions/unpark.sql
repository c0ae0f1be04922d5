-- Deliver parked messages of a subscription again, all or those named; returns how many. Where the
-- messages after them went on meanwhile, they come out of turn (kirby.put_off).
create or replace function kirby.unpark(
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
  v_positions bigint[];
begin
  with freed as (
    update kirby.due d
       set parked_at = null, due_at = kirby.now(), attempt = 0,
           reason = case s.on_failure when 'park' then 'delayed' else 'queued' end
      from kirby.subscription s
     where s.id = d.subscription_id and d.subscription_id = p_subscription_id and d.parked_at is not null
       and (p_positions is null or d.position = any (p_positions))
    returning d.position
  )
  select array_agg(f.position order by f.position) into v_positions from freed f;
  perform kirby.audit(p_actor, 'messages_unparked', 'subscription/' || p_subscription_id,
                      p_after => jsonb_build_object('positions', v_positions));
  return coalesce(cardinality(v_positions), 0);
end;
$$;
