-- The first call of a worker: check its token and environment, and tell the protocol. A viewer may read.
-- When an application's token was last used is noted, to the minute.
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
  if not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' then
    update kirby.token t
       set last_used_at = kirby.now()
     where t.hash = sha256(convert_to(current_setting('kirby.token', true), 'UTF8')) and t.role is not null
       and coalesce(t.last_used_at < kirby.now() - interval '1 minute', true);
  end if;
  select e.name into environment from kirby.environment e where e.id = v_who.environment_id;
end;
$$;
