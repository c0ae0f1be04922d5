-- What a range that is delivered again leaves to be delivered by itself stays part of the rewind: failed, parked
-- and waiting ones, but for those that had never been settled.
create or replace function kirby.mark_replays(p_claim kirby.claim)
  returns void
  language plpgsql
  volatile
as $$
begin
  update kirby.due d set rewind_id = p_claim.rewind_id
   where d.subscription_id = p_claim.subscription_id and d.lane = p_claim.lane
     and d.position between p_claim.first and p_claim.last
     and d.rewind_id is null and d.reason <> 'done'
     and not exists (select from kirby.rewind_fresh f
                      where f.subscription_id = d.subscription_id and f.position = d.position);
end;
$$;
