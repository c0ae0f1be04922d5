-- Trigger: what is skipped on purpose cannot be missed, and what is fired later has its marks later. A tick that is
-- skipped after its mark has passed is left to kirby.watch_deadlines: nobody may have looked at it in time.
create or replace function kirby.void_deadlines()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_shift interval := coalesce(new.fire_at, new.at) - coalesce(old.fire_at, old.at);
begin
  if v_shift <> '0' then
    update kirby.deadline set due_at = due_at + v_shift
     where deployment_id = new.deployment_id and tick_at = new.at and subject = '' and kind in ('start', 'finish')
       and status = 'open';
  end if;
  if new.status = 'skipped' or new.excluded is not null then
    update kirby.deadline l set status = 'void', closed_at = kirby.now()
     where l.deployment_id = new.deployment_id and l.tick_at = new.at and l.subject = ''
       and l.kind in ('start', 'finish') and l.status = 'open'
       and (new.excluded is not null
            or not exists (select from kirby.deadline s
                            where s.deployment_id = l.deployment_id and s.kind = 'start' and s.subject = ''
                              and s.tick_at = l.tick_at and s.due_at <= kirby.now()));
  end if;
  return null;
end;
$$;

create or replace trigger void_deadlines
  after update on kirby.tick
  for each row
  when (new.status = 'skipped' and old.status <> 'skipped'
        or new.excluded is distinct from old.excluded
        or coalesce(new.fire_at, new.at) <> coalesce(old.fire_at, old.at))
  execute function kirby.void_deadlines();
