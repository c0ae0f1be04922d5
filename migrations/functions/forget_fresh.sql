-- Forget which messages of a rewind's parts came for the first time, unless they are still to come.
create or replace function kirby.forget_fresh(p_rewind_id bigint)
  returns void
  language sql
  volatile
as $$
  delete from kirby.rewind_fresh f
   using kirby.rewind_lane l
   where l.rewind_id = p_rewind_id and f.subscription_id = l.subscription_id and f.lane = l.lane
     and f.position > l.after and f.position <= l.until
     and not exists (
           select from kirby.cursor c
            where c.subscription_id = f.subscription_id and c.lane = f.lane and c.rewind_id is not null)
     and not exists (
           select from kirby.claim c
            where c.subscription_id = f.subscription_id and c.id >= kirby.first_claim(f.subscription_id)
              and c.lane = f.lane and c.kind = 'range' and c.rewind_id is not null
              and f.position between c.first and c.last);
$$;
