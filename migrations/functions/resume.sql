-- A session is back after its connection was lost: what it held, but for what it still knows of (p_keep),
-- was handed out in an answer that never arrived. It is given back at once. Returns how many claims.
create or replace function kirby.resume(p_keep bigint[] default '{}')
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_given integer;
begin
  select * into v_who from kirby.principal();
  update kirby.claim c set lease_until = '-infinity', fence = default,
                           attempt = c.attempt - c.suspect::integer
    from kirby.subscription s
    join kirby.topic t on t.id = s.topic_id
   where s.id = c.subscription_id and t.environment_id = v_who.environment_id
     and c.holder = nullif(current_setting('kirby.holder', true), '')
     and c.id <> all (p_keep) and c.lease_until > '-infinity';
  get diagnostics v_given = row_count;
  return v_given;
end;
$$;
