-- Begin something that is done outside of the database, in a transaction of its own; the first time, and again
-- after it was not confirmed. Its key is the given one; else that of the message in a subscription, the name and the
-- number of it there: the same whenever the message comes again.
-- p_attempt: an id of this attempt's own, so that it may ask again when an answer was lost.
-- Returns what is to be done: do; done (it was confirmed: never again); in_doubt (it was begun, and cannot be
-- repeated: a person has to look, kirby.resolve_effect). KB001, KB002, KB003.
create or replace function kirby.begin_effect(
  p_name text,
  p_key text,
  p_subscription_id integer,
  p_position bigint,
  p_number integer,
  p_idempotent boolean,
  p_attempt uuid,
  out id bigint,
  out key text,
  out verdict text
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who    record;
  v_effect kirby.effect;
begin
  if length(p_name) not between 1 and 200 or length(p_key) not between 1 and 200 or p_name is null then
    perform kirby.fail('KB001', 'the name of an effect, and its key, have 1 to 200 characters');
  elsif p_key is null and (p_subscription_id is null or p_position is null or p_number is null) then
    perform kirby.fail('KB001', format('effect %s has no key, and is not of one message', p_name));
  end if;
  v_who := kirby.principal();
  if p_subscription_id is not null then
    perform kirby.own_subscription(p_subscription_id);
  end if;
  key := coalesce(p_key, kirby.effect_key(p_name, p_subscription_id, p_position, p_number));

  insert into kirby.effect as e (environment_id, name, key, subscription_id, position, run_id, idempotent, attempt,
                                 of_message, begun_at)
  values (v_who.environment_id, p_name, begin_effect.key, p_subscription_id, p_position, v_who.run_id,
          p_idempotent, p_attempt, p_key is null, kirby.now())
      on conflict on constraint effect_environment_id_name_key_key do nothing
  returning e.id into begin_effect.id;
  if found then
    verdict := 'do';
    return;
  end if;

  select e.* into v_effect from kirby.effect e
   where e.environment_id = v_who.environment_id and e.name = p_name and e.key = begin_effect.key
     for update;
  begin_effect.id := v_effect.id;
  verdict := case when v_effect.status = 'confirmed' then 'done'
                  when v_effect.attempt = p_attempt or p_idempotent or v_effect.status = 'again' then 'do'
                  else 'in_doubt' end;
  if verdict = 'do' and v_effect.attempt <> p_attempt then
    update kirby.effect e
       set status = 'begun', attempt = p_attempt, times = e.times + 1, begun_at = kirby.now(),
           idempotent = p_idempotent, run_id = v_who.run_id,
           subscription_id = p_subscription_id, position = p_position
     where e.id = v_effect.id;
  end if;
end;
$$;
