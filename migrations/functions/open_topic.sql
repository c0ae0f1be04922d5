-- Make a topic at its first use, with so many lanes (8 if none are given) in so many bands, of which the
-- first is served first; an existing one stays as it is. Returns its id. KB001, KB003.
create or replace function kirby.open_topic(
  p_topic text,
  p_lanes integer default null,
  p_bands integer default null
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_bands integer := coalesce(p_bands, 1);
  v_lanes integer := coalesce(p_lanes, 8 * v_bands);
begin
  if v_lanes not between 1 and 1024 or v_bands not between 1 and 16 or v_lanes % v_bands <> 0 then
    perform kirby.fail('KB001', format('%s lanes in %s bands are not possible: 1 to 1024 lanes, 1 to 16 bands of equal size', v_lanes, v_bands));
  end if;
  select * into v_who from kirby.principal();
  if p_topic ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$' then
    insert into kirby.topic (environment_id, name, lanes, bands)
    values (v_who.environment_id, p_topic, v_lanes, v_bands)
        on conflict do nothing;
  end if;
  return kirby.topic_id(v_who.environment_id, p_topic);
end;
$$;
