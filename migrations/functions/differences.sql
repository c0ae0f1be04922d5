-- Keys of a state whose value is not the same at two moments, by key, with both values (NULL: it had none), their
-- versions, and the last change of the key up to the later of them. Each moment is a position, or a time, or neither: now.
--
-- If a snapshot lies between the two, much has happened, and both states are put together whole. Otherwise only
-- the keys that were written in between are looked at.
create or replace function kirby.differences(
  p_state_id integer,
  p_from_position bigint,
  p_from_when timestamptz,
  p_to_position bigint default null,
  p_to_when timestamptz default null,
  p_prefix text default '',
  p_after text default null,
  p_limit integer default null
)
  returns table (key text, before jsonb, after jsonb, before_version bigint, after_version bigint,
                 "position" bigint, recorded_at timestamptz)
  language plpgsql
  stable
  set jit = off
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_none constant bigint := 9223372036854775807;
  v_from constant bigint := coalesce(least(p_from_position, kirby.position_by(p_state_id, p_from_when)), v_none);
  v_to   constant bigint := coalesce(least(p_to_position, kirby.position_by(p_state_id, p_to_when)), v_none);
  v_last constant text := p_prefix || repeat(chr(1114111), 256);
  v_base bigint;
  v_keys text[];
begin
  select coalesce(max(s.position), 0) into v_base from kirby.state_snapshot s
   where s.state_id = p_state_id and s.position <= least(v_from, v_to)
     and (p_from_when is null or s.latest <= p_from_when) and (p_to_when is null or s.latest <= p_to_when);
  if not exists (select from kirby.state_snapshot s
                  where s.state_id = p_state_id and s.position > least(v_from, v_to)
                    and s.position <= greatest(v_from, v_to)) then
    v_keys := array(
      select distinct m.key from kirby.state_mutation m
       where m.state_id = p_state_id and m.position > v_base and m.position <= greatest(v_from, v_to)
         and (m.position <= v_from and (p_from_when is null or m.recorded_at <= p_from_when))
             <> (m.position <= v_to and (p_to_when is null or m.recorded_at <= p_to_when))
         and m.key >= p_prefix and m.key <= v_last and (p_after is null or m.key > p_after));
  end if;

  return query
    select d.key, d.before, d.after, d.before_version, d.after_version, m.position, m.recorded_at
      from (select coalesce(f.key, t.key) as key, f.value as before, t.value as after,
                   f.version as before_version, t.version as after_version
              from kirby.entries_at(p_state_id, v_from, p_from_when, v_keys, p_prefix, p_after) f
              full join kirby.entries_at(p_state_id, v_to, p_to_when, v_keys, p_prefix, p_after) t on t.key = f.key
             where f.value is distinct from t.value and starts_with(coalesce(f.key, t.key), p_prefix)
             order by 1 limit p_limit) d
     cross join lateral (
           select m.position, m.recorded_at from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = d.key
              and (m.position <= v_to and (p_to_when is null or m.recorded_at <= p_to_when)
                   or m.position <= v_from and (p_from_when is null or m.recorded_at <= p_from_when))
            order by m.position desc limit 1) m
     order by d.key;
end;
$$;
