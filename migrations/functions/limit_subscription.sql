-- Set limits of a subscription: {"max_in_flight": messages that are handed out and not settled, "rate":
-- messages a second, "key_in_flight": the same of one key (a shared subscription; an ordered one hands a
-- key to one worker at a time anyhow), "key_rate": messages a second of one key}; null: none. What is
-- not named stays. KB001, KB002, KB003.
create or replace function kirby.limit_subscription(p_subscription_id integer, p_limits jsonb)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_own    record;
  v_new    kirby.subscription;
  v_name   text;
  v_limit  jsonb;
begin
  select * into v_own from kirby.own_subscription(p_subscription_id);
  for v_name, v_limit in select l.key, l.value from jsonb_each(p_limits) l loop
    if v_name not in ('max_in_flight', 'rate', 'key_in_flight', 'key_rate') then
      perform kirby.fail('KB001', format('%L is not a limit: max_in_flight, rate, key_in_flight or key_rate', v_name));
    elsif v_limit <> 'null' and (jsonb_typeof(v_limit) <> 'number' or (v_limit::numeric <= 0)
                                 or v_name in ('max_in_flight', 'key_in_flight')
                                    and (v_limit::numeric % 1 <> 0 or v_limit::numeric > 1000000000)) then
      perform kirby.fail('KB001', format('%s is %s: a %s above zero, or null for no limit', v_name, v_limit,
                                         case when v_name like '%rate' then 'number' else 'whole number' end));
    end if;
  end loop;
  v_new := jsonb_populate_record(v_own.subscription, p_limits);
  update kirby.subscription s
     set max_in_flight = v_new.max_in_flight, rate = v_new.rate,
         key_in_flight = v_new.key_in_flight, key_rate = v_new.key_rate
   where s.id = p_subscription_id
     and (s.max_in_flight, s.rate, s.key_in_flight, s.key_rate)
         is distinct from (v_new.max_in_flight, v_new.rate, v_new.key_in_flight, v_new.key_rate);

  -- Nothing else would free what waits for a limit that is gone.
  if v_new.mode = 'shared' and v_new.key_in_flight is null then
    update kirby.due d set reason = 'ready', due_at = kirby.now()
     where d.subscription_id = p_subscription_id and d.reason = 'waiting';
  end if;
end;
$$;
