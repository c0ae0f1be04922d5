-- Keep these subscriptions from being claimed or settled until the end of this transaction, and lock what they
-- hold. Whoever claims or settles shares the lock. KB004: somebody's transaction is open all the time.
create or replace function kirby.stop_claims(p_subscription_ids integer[])
  returns void
  language plpgsql
  volatile
  set lock_timeout = '3s'
as $$
declare
  v_id integer;
begin
  for v_id in select i.id from unnest(p_subscription_ids) as i (id) order by i.id loop
    perform pg_advisory_xact_lock(kirby.claim_lock(), v_id);
    perform from kirby.cursor c where c.subscription_id = v_id order by c.lane for no key update;
    perform from kirby.claim c
      where c.subscription_id = v_id and c.id >= kirby.first_claim(v_id) order by c.id for update;
  end loop;
exception when lock_not_available then
  perform kirby.fail('KB004', format('subscription %s is held by a transaction that does not end: try again',
                                     (select s.name from kirby.subscription s where s.id = v_id)));
end;
$$;
