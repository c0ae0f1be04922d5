-- How far an ordered subscription may go while its topic has got more lanes: a key may lie in another
-- lane since, so what is above the change waits until everything below it is settled. Once it is, the
-- cursors pass the change, and this is over.
create or replace function kirby.barrier(p_subscription kirby.subscription, p_horizon bigint)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_change bigint;
  v_locked bigint;
begin
  loop
    select min(l.position) into v_change from kirby.lane_change l
     where l.topic_id = p_subscription.topic_id
       and l.position > (select min(c.position) from kirby.cursor c where c.subscription_id = p_subscription.id);
    if v_change is null then
      return p_horizon;
    elsif v_change > p_horizon then
      return p_horizon;
    end if;

    -- Nobody claims a range while we look. Whoever holds a lane may wait for us, so we do not wait.
    select count(*) into v_locked
      from (select from kirby.cursor c
             where c.subscription_id = p_subscription.id
             order by c.lane
               for no key update skip locked) l;
    if v_locked < (select count(*) from kirby.cursor c where c.subscription_id = p_subscription.id)
       or exists (select from kirby.claim c
                where c.subscription_id = p_subscription.id and c.kind = 'range' and c.first <= v_change)
       or exists (select from kirby.cursor c
                    join kirby.message m on m.topic_id = p_subscription.topic_id and m.lane = c.lane
                                        and m.position > c.position and m.position <= v_change
                   where c.subscription_id = p_subscription.id) then
      return v_change;
    end if;
    update kirby.cursor set position = v_change
     where subscription_id = p_subscription.id and position < v_change;
  end loop;
end;
$$;
