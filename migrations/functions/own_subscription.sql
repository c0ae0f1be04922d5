-- The subscription, if it is in the environment of whoever asks; one with limits is locked, so that two
-- who claim at once do not exceed them together. KB002 otherwise; KB003.
create or replace function kirby.own_subscription(
  p_subscription_id integer,
  out subscription kirby.subscription,
  out environment_id smallint,
  out run_id bigint
)
  language plpgsql
  volatile
as $$
declare
  v_who record;
begin
  v_who := kirby.principal();
  environment_id := v_who.environment_id;
  run_id := v_who.run_id;
  select s.* into subscription
    from kirby.subscription s join kirby.topic t on t.id = s.topic_id
   where s.id = p_subscription_id and t.environment_id = v_who.environment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no subscription %s in this environment', p_subscription_id));
  end if;
  if kirby.is_limited(subscription) then
    select s.* into subscription from kirby.subscription s where s.id = p_subscription_id for no key update;
  end if;
end;
$$;
