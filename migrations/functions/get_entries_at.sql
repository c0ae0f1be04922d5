-- A state of the caller's environment as it was at a moment or a position (kirby.entries_at): these keys, or all with a
-- prefix, after a key. KB001: neither, or both. KB003.
create or replace function kirby.get_entries_at(
  p_state text,
  p_when timestamptz default null,
  p_position bigint default null,
  p_keys text[] default null,
  p_prefix text default '',
  p_after text default null,
  p_limit integer default null
)
  returns table (key text, version bigint, value jsonb, "position" bigint, run_id bigint, recorded_at timestamptz)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
begin
  select * into v_who from kirby.bearer();
  if num_nonnulls(p_when, p_position) <> 1 then
    perform kirby.fail('KB001', 'give a moment or a position');
  end if;
  return query
    select e.*
      from kirby.state s
     cross join lateral kirby.entries_at(s.id, p_position, p_when, p_keys, p_prefix, p_after, p_limit) e
     where s.environment_id = v_who.environment_id and s.name = p_state;
end;
$$;
