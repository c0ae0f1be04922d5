-- Set keys of a state back to what each was just before a position of its own, p_before[i]: new versions, with
-- headers.restored = {…, "version": the one it was set back to, 0 if there was none}. A key that had no value then is
-- deleted; one that is so already is left alone. Returns how many were changed. What lies before those positions
-- has to be final (kirby.state_horizon, or positions that were read).
create or replace function kirby.restore_keys(
  p_state_id integer,
  p_keys text[],
  p_before bigint[],
  p_run_id bigint default null,
  p_headers jsonb default '{}'
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_then record;
begin
  select array_agg(k.key) as keys, array_agg(m.value) as values, array_agg(coalesce(m.version, 0)) as versions
    into v_then
    from (select u.key, min(u.before) as before from unnest(p_keys, p_before) as u (key, before) group by u.key) k
    left join lateral (
         select m.version, case m.op when 'set' then m.value end as value from kirby.state_mutation m
          where m.state_id = p_state_id and m.key = k.key and m.position < k.before
          order by m.position desc limit 1) m on true;
  return kirby.set_back(p_state_id, v_then.keys, v_then.values, v_then.versions, p_run_id, p_headers);
end;
$$;
