-- Pause a subscription, or let it go on: nothing more is handed out meanwhile; what is in hands is settled.
create or replace function kirby.pause_subscription(
  p_subscription_id integer,
  p_paused boolean,
  p_actor text
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update kirby.subscription set paused_at = case when p_paused then kirby.now() end
   where id = p_subscription_id and (paused_at is null) = p_paused;
  if found then
    perform kirby.audit(p_actor, case when p_paused then 'subscription_paused' else 'subscription_resumed' end,
                        'subscription/' || p_subscription_id);
  end if;
end;
$$;
