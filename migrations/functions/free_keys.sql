-- Free what waits for the keys of messages that were settled just now.
create or replace function kirby.free_keys(
  p_subscription kirby.subscription,
  p_claim kirby.claim,
  p_upto bigint
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_key text;
begin
  for v_key in
    select distinct m.key from kirby.message m
     where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
       and m.position between p_claim.first and p_upto and m.key is not null
     order by m.key
  loop
    perform kirby.free_key(p_subscription, v_key);
  end loop;
end;
$$;
