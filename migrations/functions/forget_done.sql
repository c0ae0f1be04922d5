-- Forget what was noted as done in a range that is settled, unless another open range covers it; it may
-- have been noted before the range shrank, so all that lies below counts; but not what a lane that was moved
-- back will come to. See kirby.close_due.
create or replace function kirby.forget_done(p_claim kirby.claim)
  returns void
  language plpgsql  -- not SQL: its plan is kept, and most settles call it
  volatile
as $$
begin
  delete from kirby.due d
   where d.subscription_id = p_claim.subscription_id and d.lane = p_claim.lane and d.reason = 'done'
     and d.position <= p_claim.last
     and d.position <= (select n.position from kirby.cursor n
                         where n.subscription_id = d.subscription_id and n.lane = d.lane
                         order by n.position desc limit 1)
     and not exists (select from kirby.claim c
                      where c.subscription_id = d.subscription_id and c.id >= kirby.first_claim(d.subscription_id)
                        and c.lane = d.lane
                        and c.kind = 'range' and d.position between c.first and c.last);
end;
$$;
