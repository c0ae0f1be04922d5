-- Sessions are dead (p_holders), and whoever started them saw it: what they held is given back at once.
-- p_suspect: nobody knows which message it was, so all come again one by one, and are counted. Otherwise
-- p_lost names the messages that were its cause, [{"c": claim, "f": fence, "p": position, "e": error}, …]:
-- their attempt has failed, and what is around them comes again as it was. Returns how many claims. KB003.
create or replace function kirby.bury(
  p_holders text[],
  p_suspect boolean default true,
  p_lost jsonb default '[]'
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who   record;
  v_own   record;
  v_lost  record;
  v_claim kirby.claim;
  v_count integer;
begin
  select * into v_who from kirby.principal();
  for v_lost in
    select l.c, l.f, l.p, l.e
      from jsonb_to_recordset(p_lost) as l (c bigint, f bigint, p bigint, e text)
     order by l.c
  loop
    select * into v_claim from kirby.claim c
     where c.id = v_lost.c and c.fence = v_lost.f and c.holder = any (p_holders)
       for update;
    continue when not found;
    select * into v_own from kirby.own_subscription(v_claim.subscription_id);
    perform kirby.file_failures(v_own.subscription, v_claim, jsonb_build_array(
      jsonb_build_object('p', v_lost.p, 'a', 'retry', 'e', v_lost.e)));
    if exists (select from kirby.due d
                where d.subscription_id = v_claim.subscription_id and d.position = v_lost.p
                  and d.parked_at is not null) then
      perform kirby.answer_killed(v_own.subscription, v_claim.lane, v_lost.p, v_lost.e);
    end if;
    if v_claim.kind = 'due' or v_claim.suspect then  -- it was alone in the claim, or handed out alone
      perform kirby.finish(v_own.subscription, v_claim, v_lost.p, false, '0');
    end if;
  end loop;

  update kirby.claim c
     set lease_until = '-infinity', fence = default, suspect = c.suspect or p_suspect,
                           attempt = c.attempt - (c.suspect and not p_suspect)::integer
    from kirby.subscription s
    join kirby.topic t on t.id = s.topic_id
   where s.id = c.subscription_id and t.environment_id = v_who.environment_id
     and c.holder = any (p_holders) and c.lease_until > '-infinity';
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;
