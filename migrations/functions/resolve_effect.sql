-- A person looked at an effect that was begun and not confirmed: it happened (p_done), or it did not and is to be
-- done again. If its message was parked for it, it is delivered again. Audited. Returns the subscription and how
-- many messages go on. KB002: no such effect in the environment. KB004: it is not in doubt.
create or replace function kirby.resolve_effect(
  p_environment_id smallint,
  p_effect_id bigint,
  p_done boolean,
  p_actor text
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_effect kirby.effect;
begin
  select * into v_effect from kirby.effect e
   where e.id = p_effect_id and e.environment_id = p_environment_id for update;
  if not found then
    perform kirby.fail('KB002', format('there is no effect %s in this environment', p_effect_id));
  elsif v_effect.status <> 'begun' then
    perform kirby.fail('KB004', format('effect %s is not in doubt: it is %s', p_effect_id,
      case v_effect.status when 'again' then 'to be done again' else 'confirmed' end));
  end if;
  update kirby.effect e
     set status = case when p_done then 'confirmed' else 'again' end,
         confirmed_at = case when p_done then kirby.now() end,
         resolved_by = p_actor, resolved_at = kirby.now()
   where e.id = p_effect_id;
  perform kirby.audit(p_actor, 'effect_resolved', 'effect/' || p_effect_id,
                      p_after => jsonb_build_object('name', v_effect.name, 'key', v_effect.key, 'done', p_done));
  if exists (select from kirby.due d where d.subscription_id = v_effect.subscription_id
                and d.position = v_effect.position and d.parked_at is not null) then
    return kirby.unpark(v_effect.subscription_id, array[v_effect.position], p_actor);
  end if;
  return 0;
end;
$$;
