-- Set how long a log other than that of messages is kept (NULL: for ever). Audited. KB001: less than a day,
-- or mutations of states, which are history. KB002: no such log.
create or replace function kirby.keep_log(p_log text, p_keep interval, p_actor text)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before interval;
begin
  if p_log = 'state_mutation' and p_keep is not null then
    perform kirby.fail('KB001', 'state_mutation is the history of the states: it is kept for ever');
  elsif p_log = 'message' then
    perform kirby.fail('KB001', 'messages are kept by topic: kirby topic retention NAME');
  elsif p_keep < interval '1 day' then
    perform kirby.fail('KB001', format('%s cannot be kept for less than a day', p_log));
  end if;
  select l.keep into v_before from kirby.log_retention l where l.log = p_log for update;
  if not found then
    perform kirby.fail('KB002', format('there is no log %s', p_log));
  end if;
  update kirby.log_retention l set keep = p_keep where l.log = p_log;
  if v_before is distinct from p_keep then
    perform kirby.audit(p_actor, 'retention_set', 'log/' || p_log,
                        p_before => jsonb_build_object('keep', v_before), p_after => jsonb_build_object('keep', p_keep));
  end if;
end;
$$;
