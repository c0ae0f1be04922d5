-- KB007 unless each statement takes a snapshot of its own, on the primary: what the horizon needs.
create or replace function kirby.check_isolation()
  returns void
  language plpgsql
  volatile
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform kirby.fail('KB007', 'the log is read in READ COMMITTED only, this transaction is in '
                                || current_setting('transaction_isolation'));
  elsif pg_is_in_recovery() then
    perform kirby.fail('KB007', 'the horizon is known on the primary only, this is a standby');
  end if;
end;
$$;
