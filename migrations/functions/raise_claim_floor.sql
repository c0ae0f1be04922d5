-- Note below which id a subscription has no claims any more; to be called every few seconds by itself, in
-- a transaction of its own. Whoever claims shares a lock, so while we have it, nobody is about to insert
-- one with a lower id. Returns whether it is another one than before.
create or replace function kirby.raise_claim_floor(p_subscription_id integer)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before bigint := kirby.first_claim(p_subscription_id);
  v_floor  bigint;
begin
  perform set_config('lock_timeout', '200ms', true);
  perform pg_advisory_xact_lock(kirby.claim_lock(), p_subscription_id);
  select coalesce(min(c.id), (select last_value from kirby.claim_id_seq)) into v_floor
    from kirby.claim c
   where c.subscription_id = p_subscription_id and c.id >= v_before;
  if v_floor <= v_before then
    return false;
  end if;
  insert into kirby.claim_floor (subscription_id, id) values (p_subscription_id, v_floor);
  delete from kirby.claim_floor where subscription_id = p_subscription_id and id < v_floor;
  return true;
end;
$$;
