-- Decide what of a claim is handed out now; NULL (and the claim is gone) if nothing is left of it.
-- Counts the delivery before it happens: a message that keeps killing the process that handles it is
-- parked after max_attempts, and what is around it goes on.
create or replace function kirby.open_claim(
  p_subscription kirby.subscription,
  p_claim kirby.claim,
  p_fresh boolean default false
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_claim kirby.claim := p_claim;
  v_next  bigint;
  v_last  bigint;
  v_count bigint;
begin
  if v_claim.kind = 'due' then
    if not exists (select from kirby.due d
                    where d.subscription_id = p_subscription.id and d.position = v_claim.first) then
      delete from kirby.claim where id = v_claim.id;  -- retention was told to remove it, unread
      return null;
    elsif kirby.has_expired(p_subscription.topic_id, v_claim.lane, v_claim.first) then
      delete from kirby.claim where id = v_claim.id;
      perform kirby.close_due(p_subscription, v_claim.first);
      return null;
    elsif not v_claim.suspect then
      return v_claim;
    elsif v_claim.attempt >= p_subscription.max_attempts then
      delete from kirby.claim where id = v_claim.id;
      perform kirby.park(p_subscription, v_claim.lane, v_claim.first, v_claim.attempt, 'killed',
                         kirby.killed(v_claim));
      return null;
    end if;
    update kirby.claim set attempt = attempt + 1 where id = v_claim.id returning * into v_claim;
    update kirby.due set attempt = v_claim.attempt
     where subscription_id = p_subscription.id and position = v_claim.first;
    return v_claim;
  end if;

  perform kirby.sift(p_subscription, v_claim);
  perform kirby.hold_back(p_subscription, v_claim);
  if not p_fresh and p_subscription.key_in_flight is not null then
    perform kirby.free_keys(p_subscription, v_claim, v_claim.last);  -- of what has expired meanwhile
  end if;
  if p_fresh and num_nonnulls(p_subscription.key_in_flight, p_subscription.key_rate) > 0 then
    perform kirby.limit_keys(p_subscription, v_claim);
  end if;
  if v_claim.rewind_id is not null then
    perform kirby.mark_replays(v_claim);
  end if;
  if p_fresh and p_subscription.rate is null and not exists (
    select from kirby.due d where d.subscription_id = p_subscription.id
  ) then
    return v_claim;  -- all of it, as it nearly always is
  end if;
  loop
    select min(m.position), max(m.position), count(*) into v_next, v_last, v_count from kirby.message m
     where m.topic_id = p_subscription.topic_id and m.lane = v_claim.lane
       and m.position between v_claim.first and v_claim.last
       and not exists (select from kirby.due d
                        where d.subscription_id = p_subscription.id and d.position = m.position);
    if v_next is null then
      delete from kirby.claim where id = v_claim.id;
      perform kirby.forget_done(v_claim);
      return null;
    elsif not v_claim.suspect then
      if v_last <> v_claim.upto then
        update kirby.claim set upto = v_last where id = v_claim.id returning * into v_claim;
      end if;
      if p_subscription.rate is not null then
        perform kirby.count_rate(p_subscription, v_count);
      end if;
      return v_claim;
    end if;
    if v_next > v_claim.first then
      v_claim.attempt := 1;  -- what was counted is of a message that has gone meanwhile
    end if;
    if v_claim.attempt < p_subscription.max_attempts then
      update kirby.claim set first = v_next, upto = v_next, attempt = v_claim.attempt + 1
       where id = v_claim.id returning * into v_claim;
      return v_claim;
    end if;

    perform kirby.park(p_subscription, v_claim.lane, v_next, v_claim.attempt, 'killed',
                       kirby.killed(v_claim));
    if v_claim.rewind_id is not null then
      perform kirby.mark_replays(p_claim);
    end if;
    if v_next = v_claim.last then
      delete from kirby.claim where id = v_claim.id;
      perform kirby.forget_done(v_claim);
      return null;
    end if;
    update kirby.claim set first = v_next + 1, upto = last, attempt = 1
     where id = v_claim.id returning * into v_claim;
    perform kirby.hold_back(p_subscription, v_claim);
    if v_claim.rewind_id is not null then
      perform kirby.mark_replays(v_claim);
    end if;
  end loop;
end;
$$;
