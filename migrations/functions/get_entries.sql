-- The latest entries of a state, for some keys or for all with a prefix, with the versions that a
-- change may be based on. A deleted key has its version and no value. KB003.
create or replace function kirby.get_entries(
  p_state text,
  p_keys text[] default null,
  p_prefix text default '',
  p_after text default null,
  p_limit integer default 1000
)
  returns table (key text, version bigint, deleted boolean, value jsonb)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_state integer;
begin
  select * into v_who from kirby.bearer();
  select s.id into v_state from kirby.state s
   where s.environment_id = v_who.environment_id and s.name = p_state;
  if p_keys is not null then
    return query
      select e.key, e.version, e.op = 'delete', e.value from kirby.state_entry e
       where e.state_id = v_state and e.key = any (p_keys);
  else
    return query
      select e.key, e.version, false, e.value from kirby.state_entry e
       where e.state_id = v_state and e.op = 'set'
         and starts_with(e.key, p_prefix) and (p_after is null or e.key > p_after)
       order by e.key limit p_limit;
  end if;
end;
$$;
