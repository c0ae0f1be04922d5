-- The versions of a key of a state, newest first, before a position. KB003.
create or replace function kirby.get_history(
  p_state text,
  p_key text,
  p_before bigint default null,
  p_limit integer default 1000
)
  returns table (version bigint, op text, value jsonb, "position" bigint, run_id bigint, parents bigint[],
                 headers jsonb, recorded_at timestamptz)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
begin
  select * into v_who from kirby.bearer();
  return query
    select m.version, m.op, m.value, m.position, m.run_id, m.parents, m.headers, m.recorded_at
      from kirby.state s
      join kirby.state_mutation m on m.state_id = s.id
     where s.environment_id = v_who.environment_id and s.name = p_state and m.key = p_key
       and (p_before is null or m.position < p_before)
     order by m.position desc limit p_limit;
end;
$$;
