-- Claim one message that is due to be delivered by itself; NULL if there is none.
create or replace function kirby.take_due(
  p_subscription kirby.subscription,
  p_run_id bigint,
  p_lease interval
)
  returns kirby.claim
  language plpgsql
  volatile
as $$
declare
  v_due   kirby.due;
  v_claim kirby.claim;
begin
  loop
    select * into v_due from kirby.due n
     where n.subscription_id = p_subscription.id
       and n.parked_at is null and n.due_at <= kirby.now()
     order by n.due_at limit 1
       for update skip locked;
    if not found then
      return null;
    end if;
    continue when kirby.put_off(p_subscription, v_due);
    continue when v_due.rewind_id is not null and kirby.put_off_replay(v_due);

    update kirby.due d
       set due_at = 'infinity', attempt = d.attempt + 1,
           reason = case when d.reason in ('delayed', 'queued', 'limited') then 'ready' else d.reason end
     where d.subscription_id = p_subscription.id and d.position = v_due.position
    returning d.* into v_due;
    insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, holder, lease_until, attempt, kind,
                             rewind_id)
    values (p_subscription.id, v_due.lane, v_due.position, v_due.position, v_due.position, p_run_id,
            current_setting('kirby.holder', true), kirby.now() + p_lease, v_due.attempt, 'due',
            v_due.rewind_id)
    returning * into v_claim;
    if p_subscription.rate is not null then
      perform kirby.count_rate(p_subscription, 1);
    end if;
    return v_claim;
  end loop;
end;
$$;
