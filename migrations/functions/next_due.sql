-- In how many seconds something of these subscriptions comes up without a new message: a retry or delayed
-- message that is due, a lease that ends, a rate (that of a rewind too) that lets the next one out. NULL: nothing is planned.
create or replace function kirby.next_due(p_subscription_ids integer[])
  returns double precision
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
  v_now timestamptz := kirby.now();
begin
  select * into v_who from kirby.principal();
  return (
    select case when min(next.at) > v_now then extract(epoch from min(next.at) - v_now)::float8
                when min(next.at) is not null then 0 end  -- at -infinity too, which is not subtracted
      from kirby.subscription s
      join kirby.topic t on t.id = s.topic_id and t.environment_id = v_who.environment_id
     cross join lateral (
           select min(d.due_at) as at from kirby.due d
            where d.subscription_id = s.id and d.parked_at is null and d.due_at < 'infinity'
            union all
           select min(c.lease_until) from kirby.claim c
            where c.subscription_id = s.id and c.id >= kirby.first_claim(s.id)
            union all
           select s.rate_at where s.rate_at > kirby.now()
            union all
           select w.rate_at from kirby.rewind w
            where w.status = 'running' and w.rate_at > kirby.now()
              and exists (select from kirby.rewind_lane l where l.rewind_id = w.id and l.subscription_id = s.id)
           ) next
     where s.id = any (p_subscription_ids) and s.paused_at is null);
end;
$$;
