-- Of a claimed range, file what is not to be handed out with it: what is delayed comes when it is due;
-- what has expired, or was taken back, counts as done.
create or replace function kirby.sift(p_subscription kirby.subscription, p_claim kirby.claim)
  returns void
  language plpgsql
  volatile
as $$
begin
  if not (select t.sifted from kirby.topic t where t.id = p_subscription.topic_id) then
    return;
  end if;
  insert into kirby.due (subscription_id, position, lane, key, due_at, reason)
  select p_subscription.id, m.position, m.lane, m.key,
         case when s.gone then 'infinity' else m.deliver_at end,
         case when s.gone then 'done' else 'delayed' end
    from kirby.message m
   cross join lateral (
         select coalesce(m.expires_at <= kirby.now(), false)
             or exists (select from kirby.retracted r
                         where r.topic_id = m.topic_id and r.position = m.position) as gone) s
   where m.topic_id = p_subscription.topic_id and m.lane = p_claim.lane
     and m.position between p_claim.first and p_claim.last
     and (s.gone or m.deliver_at > kirby.now())
      on conflict do nothing;
end;
$$;
