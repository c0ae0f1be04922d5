-- Let a state keep all versions of so long, and of older ones the last of each key and day (UTC); NULL: all that there
-- are. Nothing is removed here: kirby.compact_state does it, bit by bit. Audited. KB001 (kirby.check_keep). KB002: no state.
create or replace function kirby.set_compaction(p_state_id integer, p_keep interval, p_actor text, p_reason text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_object text;
  v_before interval;
begin
  select format('state/%s/%s', e.name, s.name) into v_object
    from kirby.state s join kirby.environment e on e.id = s.environment_id where s.id = p_state_id;
  if not found then
    perform kirby.fail('KB002', format('there is no state %s', p_state_id));
  end if;
  perform kirby.check_keep(p_keep);
  insert into kirby.compaction (state_id, actor) values (p_state_id, p_actor) on conflict do nothing;
  select c.keep into v_before from kirby.compaction c where c.state_id = p_state_id for update;
  if v_before is distinct from p_keep then
    update kirby.compaction c
       set keep = p_keep, actor = p_actor, reason = coalesce(p_reason, ''), set_at = kirby.now()
     where c.state_id = p_state_id;
    perform kirby.audit(p_actor, 'compaction_set', v_object, p_reason => p_reason,
                        p_before => jsonb_build_object('daily_after', v_before),
                        p_after => jsonb_build_object('daily_after', p_keep));
  end if;
end;
$$;
