-- Have everything that waits at a channel sent at once: what was given up, and what waits for its next try. Audited.
-- Returns how many notices go on.
create or replace function kirby.resend_notices(p_channel_id integer, p_actor text)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place record;
  v_sent  integer := 0;
begin
  for v_place in
    select d.subscription_id,
           coalesce(array_agg(d.position) filter (where d.parked_at is not null), '{}') as parked,
           coalesce(array_agg(d.position) filter (where d.parked_at is null), '{}') as waiting
      from kirby.notices_at(p_channel_id) d
     group by d.subscription_id
  loop
    if v_place.parked <> '{}' then
      perform kirby.unpark(v_place.subscription_id, v_place.parked, p_actor);
    end if;
    update kirby.due d set due_at = least(d.due_at, kirby.now())
     where d.subscription_id = v_place.subscription_id and d.position = any (v_place.waiting) and d.reason = 'failed';
    v_sent := v_sent + cardinality(v_place.parked) + cardinality(v_place.waiting);
  end loop;
  return v_sent;
end;
$$;
