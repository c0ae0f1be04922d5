-- Keep a claim: its lease ends p_lease from now. KB005: it was lost to another worker.
create or replace function kirby.renew(
  p_claim_id bigint,
  p_fence bigint,
  p_lease interval default '30 seconds'
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
begin
  select * into v_who from kirby.principal();
  update kirby.claim c set lease_until = kirby.now() + p_lease
   where c.id = p_claim_id and c.fence = p_fence
     and c.subscription_id in (select s.id from kirby.subscription s
                                 join kirby.topic t on t.id = s.topic_id
                                where t.environment_id = v_who.environment_id);
  if not found then
    perform kirby.fail('KB005', 'the claim was lost to another worker');
  end if;
end;
$$;
