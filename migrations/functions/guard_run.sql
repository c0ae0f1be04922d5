-- Trigger: the steps that a run can take (DESIGN §2), for every role. What has ended has ended.
create or replace function kirby.guard_run()
  returns trigger
  language plpgsql
as $$
begin
  if new.status <> old.status and (old.status, new.status) not in (
       ('queued', 'starting'), ('queued', 'cancelled'),
       ('starting', 'running'), ('starting', 'failed'), ('starting', 'cancelled'), ('starting', 'lost'),
       ('running', 'succeeded'), ('running', 'failed'), ('running', 'cancelled'), ('running', 'timed_out'),
       ('running', 'lost')) then
    perform kirby.fail('KB008', format('run %s is %s: it cannot become %s', old.id, old.status, new.status));
  end if;
  return new;
end;
$$;

create or replace trigger guard_run before update of status on kirby.run
  for each row execute function kirby.guard_run();
