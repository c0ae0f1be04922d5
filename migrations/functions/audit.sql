-- Record a change that a person or the API makes; called in the transaction of that change.
create or replace function kirby.audit(
  p_actor text,
  p_verb text,
  p_object text,
  p_before jsonb default null,
  p_after jsonb default null,
  p_reason text default null
)
  returns bigint
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into kirby.audit_event (position, actor, verb, object, before, after, reason)
  values (nextval('kirby.position'), p_actor, p_verb, p_object, p_before, p_after, p_reason)
  returning position;
$$;
