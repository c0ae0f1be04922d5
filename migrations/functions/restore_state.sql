-- Set a state back to what it was at a position, or at a moment: all of it, these keys, or those with a prefix. New
-- versions, with headers.restored = {"to", "by", "reason", "version"}; a key that had no value then is deleted.
-- Returns how many were changed. Audited. KB001: neither a position nor a moment, or compaction removed what was then.
create or replace function kirby.restore_state(
  p_state_id integer,
  p_position bigint,
  p_when timestamptz,
  p_keys text[],
  p_prefix text,
  p_actor text,
  p_reason text
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_to     jsonb := coalesce(to_jsonb(p_position), to_jsonb(p_when));
  v_then   record;
  v_object text;
  v_count  integer;
begin
  if num_nonnulls(p_position, p_when) <> 1 then
    perform kirby.fail('KB001', 'restore to what: give a position or a moment');
  end if;
  perform pg_advisory_xact_lock_shared(kirby.compaction_lock(), s.environment_id)  -- what was then stays
     from kirby.state s where s.id = p_state_id;
  perform kirby.check_known(p_state_id, p_position, p_when, p_keys, p_prefix);
  select array_agg(e.key) as keys, array_agg(t.value) as values, array_agg(coalesce(t.version, 0)) as versions
    into v_then
    from kirby.state_entry e
    left join kirby.entries_at(p_state_id, p_position, p_when, p_keys, p_prefix) t on t.key = e.key
   where e.state_id = p_state_id and starts_with(e.key, p_prefix)
     and (p_keys is null or e.key = any (p_keys));
  v_count := kirby.set_back(p_state_id, v_then.keys, v_then.values, v_then.versions, null, jsonb_build_object(
    'restored', jsonb_build_object('to', v_to, 'by', p_actor, 'reason', p_reason)));

  select format('state/%s/%s', v.name, s.name) into v_object
    from kirby.state s join kirby.environment v on v.id = s.environment_id where s.id = p_state_id;
  perform kirby.audit(p_actor, 'state_restored', v_object, p_reason => p_reason, p_after => jsonb_strip_nulls(
    jsonb_build_object('to', v_to, 'keys', to_jsonb(p_keys), 'prefix', nullif(p_prefix, ''), 'changed', v_count)));
  return v_count;
end;
$$;
