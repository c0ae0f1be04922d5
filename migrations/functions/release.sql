-- Give a claim back at once, unsettled: its messages go to whoever asks next. Nothing happens if it
-- was lost already. p_suspect: its handling broke off, so it is handed out message by message. Otherwise
-- that it was handed out does not count as an attempt.
create or replace function kirby.release(
  p_claim_id bigint,
  p_fence bigint,
  p_suspect boolean default false
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
begin
  select * into v_who from kirby.principal();
  update kirby.claim c set lease_until = '-infinity', fence = default,
                           suspect = c.suspect or p_suspect,
                           attempt = c.attempt - (c.suspect and not p_suspect)::integer
   where c.id = p_claim_id and c.fence = p_fence
     and c.subscription_id in (select s.id from kirby.subscription s
                                 join kirby.topic t on t.id = s.topic_id
                                where t.environment_id = v_who.environment_id);
end;
$$;
