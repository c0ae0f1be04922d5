-- The first call of a worker: check its token and environment, and tell the protocol. A viewer may read.
create or replace function kirby.hello(
  out protocol integer,
  out environment text,
  out run_id bigint
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
begin
  select * into v_who from kirby.bearer();
  protocol := kirby.protocol();
  run_id := v_who.run_id;
  select e.name into environment from kirby.environment e where e.id = v_who.environment_id;
end;
$$;
