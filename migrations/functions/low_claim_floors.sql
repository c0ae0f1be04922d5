-- The subscriptions that have claimed so often since their floor was noted that it is worth another look.
create or replace function kirby.low_claim_floors(p_claims integer default 200)
  returns setof integer
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.id
    from kirby.subscription s
    join kirby.topic t on t.id = s.topic_id
   where exists (
         select from generate_series(0, t.lanes - 1) as l (lane)
          cross join lateral (
                select n.claim_id from kirby.cursor n
                 where n.subscription_id = s.id and n.lane = l.lane
                 order by n.position desc limit 1) c
          where c.claim_id > kirby.first_claim(s.id) + p_claims);
$$;
