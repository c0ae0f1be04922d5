-- Below this id a subscription has no claims. See kirby.raise_claim_floor.
create or replace function kirby.first_claim(p_subscription_id integer)
  returns bigint
  language sql
  stable
as $$
  select coalesce((select f.id from kirby.claim_floor f
                    where f.subscription_id = p_subscription_id
                    order by f.id desc limit 1), 0);
$$;
