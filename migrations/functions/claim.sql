-- Claim the next batch of a subscription: one row, or none if there is nothing to do. Nobody else gets
-- these messages until the claim is settled, released, or its lease ends. KB002, KB003, KB007.
create or replace function kirby.claim(
  p_subscription_id integer,
  p_limit integer default 100,
  p_lease interval default '30 seconds'
)
  returns table (claim_id bigint, fence bigint, attempt smallint, positions bigint[], keys text[],
                 payloads json, headers json, recorded_at timestamptz[],
                 run_ids bigint[], parents json)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_own   record;
  v_claim kirby.claim;
begin
  select * into v_own from kirby.own_subscription(p_subscription_id);
  v_claim := kirby.take(v_own.subscription, v_own.run_id, p_limit, p_lease);
  if v_claim.id is not null then
    return query select b.* from kirby.batch_of(v_claim, (v_own.subscription).topic_id) b;
  end if;
end;
$$;
