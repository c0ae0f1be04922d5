-- Trigger: a tick that is no longer planned has no marks. What was met or missed stays known.
create or replace function kirby.drop_deadlines()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- Planned each time: with the plan of an empty table thousands of ticks would take minutes.
  execute '
    delete from kirby.deadline l
     using old_ticks o
     where l.deployment_id = o.deployment_id and l.tick_at = o.at and l.subject = ''''
       and l.kind in (''start'', ''finish'') and l.status = ''open''';
  return null;
end;
$$;

create or replace trigger drop_deadlines
  after delete on kirby.tick
  referencing old table as old_ticks
  for each statement execute function kirby.drop_deadlines();
