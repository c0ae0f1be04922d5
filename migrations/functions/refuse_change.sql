-- Trigger: the logs are append-only, for every role (DESIGN promise 4). Retention drops partitions.
create or replace function kirby.refuse_change()
  returns trigger
  language plpgsql
as $$
begin
  perform kirby.fail('KB003', format('%s is append-only: %s is refused', tg_table_name, tg_op));
end;
$$;

create or replace trigger append_only before update or delete or truncate on kirby.message
  for each statement execute function kirby.refuse_change();
create or replace trigger append_only before update or delete or truncate on kirby.job_event
  for each statement execute function kirby.refuse_change();
create or replace trigger append_only before update or delete or truncate on kirby.log_line
  for each statement execute function kirby.refuse_change();
create or replace trigger append_only before update or delete or truncate on kirby.state_mutation
  for each statement execute function kirby.refuse_change();
create or replace trigger append_only before update or delete or truncate on kirby.secret_access
  for each statement execute function kirby.refuse_change();
create or replace trigger append_only before update or delete or truncate on kirby.audit_event
  for each statement execute function kirby.refuse_change();
