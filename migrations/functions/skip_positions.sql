-- Let the log go on above a position: take all up to it. A sequence can only be passed like this without
-- the risk of setting it back.
create or replace function kirby.skip_positions(p_upto bigint)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform nextval('kirby.position') from generate_series((select last_value from kirby.position), p_upto);
end;
$$;
