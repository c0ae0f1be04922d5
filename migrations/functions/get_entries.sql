-- The latest entries of a state, for some keys or for all with a prefix, with the versions that a
-- change may be based on. A deleted key has its version and no value. All: from p_start on (or after p_after), before
-- p_stop, in the order of the keys or backwards (then p_after is where to go on downwards). age: seconds since its last change.
-- KB003.
create or replace function kirby.get_entries(
  p_state text,
  p_keys text[] default null,
  p_prefix text default '',
  p_after text default null,
  p_limit integer default 1000,
  p_start text default null,
  p_stop text default null,
  p_reverse boolean default false
)
  returns table (key text, version bigint, deleted boolean, value jsonb, age double precision)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_state integer;
  v_from  text;
  v_to    text;
begin
  select * into v_who from kirby.bearer();
  select s.id into v_state from kirby.state s
   where s.environment_id = v_who.environment_id and s.name = p_state;
  if p_keys is not null then
    return query
      select e.key, e.version, e.op = 'delete', e.value, extract(epoch from clock_timestamp() - e.updated_at)::float8
        from kirby.state_entry e
       where e.state_id = v_state and e.key = any (p_keys);
    return;
  end if;

  v_from := greatest(p_prefix collate "C", p_start);
  v_to := least(p_prefix || repeat(chr(1114111), 256) collate "C", p_stop);  -- behind all keys with the prefix
  if p_reverse then
    return query
      select e.key, e.version, false, e.value, extract(epoch from clock_timestamp() - e.updated_at)::float8
        from kirby.state_entry e
       where e.state_id = v_state and e.op = 'set' and e.key >= v_from
         and e.key <= least(v_to collate "C", p_after) and (p_after is null or e.key < p_after)
         and (p_stop is null or e.key < p_stop) and starts_with(e.key, p_prefix)
       order by e.key desc limit p_limit;
  else
    return query
      select e.key, e.version, false, e.value, extract(epoch from clock_timestamp() - e.updated_at)::float8
        from kirby.state_entry e
       where e.state_id = v_state and e.op = 'set' and e.key >= greatest(v_from collate "C", p_after)
         and e.key <= v_to and (p_after is null or e.key > p_after)
         and (p_stop is null or e.key < p_stop) and starts_with(e.key, p_prefix)
       order by e.key limit p_limit;
  end if;
end;
$$;
