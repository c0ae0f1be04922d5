-- Make a log, or a partition of it, refuse changes (a statement that names a partition does not fire its
-- log's triggers): append_only refuses, by_policy looks at each row that retention deletes.
create or replace function kirby.guard_log(p_log text, p_table text)
  returns void
  language plpgsql
  volatile
as $$
begin
  execute format('create or replace trigger append_only before update or delete or truncate on kirby.%I
                    for each statement execute function kirby.refuse_change(%L)', p_table, p_log);
  execute format('create or replace trigger by_policy after delete on kirby.%I referencing old table as removed
                    for each statement execute function kirby.refuse_removal(%L)', p_table, p_log);
end;
$$;
