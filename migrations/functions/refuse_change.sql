-- Trigger: the logs are append-only, for every role (DESIGN promise 4). Retention drops partitions; where
-- it deletes rows it says so in kirby.removing, and kirby.refuse_removal looks at each of them.
create or replace function kirby.refuse_change()
  returns trigger
  language plpgsql
as $$
begin
  if tg_op = 'DELETE' and current_setting('kirby.removing', true) = tg_argv[0] then
    return null;
  end if;
  perform kirby.fail('KB003', format('%s is append-only: %s is refused', tg_table_name, tg_op));
end;
$$;
