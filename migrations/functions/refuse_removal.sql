-- Trigger: of a log only those rows can be deleted that its policy does not keep, whoever deletes them and
-- whatever kirby.removing says. Of messages those that kirby.remove_messages has passed; of states, if they are compacted,
-- versions of a day that is old enough, if the next one of their key that stays is of that day (kirby.compact_state).
create or replace function kirby.refuse_removal()
  returns trigger
  language plpgsql
  set enable_sort = off  -- kirby.entries_of
  set enable_bitmapscan = off
as $$
declare
  v_log  text := tg_argv[0];
  v_kept bigint;
begin
  if v_log = 'message' then
    select min(r.position) into v_kept from removed r
     where not exists (select from kirby.topic_retention t
                        where t.topic_id = r.topic_id and t.gone_to >= r.position);
  elsif v_log = 'state_mutation' then
    select min(r.position) into v_kept from removed r
     where not exists (
           select from kirby.compaction c
            cross join lateral (
                  select m.recorded_at from kirby.state_mutation m
                   where m.state_id = r.state_id and m.key = r.key and m.position > r.position
                     and m.position <= c.exact_from
                   order by m.position limit 1) n
            where c.state_id = r.state_id and r.position <= c.looked
              and kirby.day_end(r.recorded_at) <= kirby.compaction_cut(c.keep)
              and kirby.day_end(n.recorded_at) = kirby.day_end(r.recorded_at));
  elsif v_log in ('job_event', 'log_line', 'secret_access', 'audit_event') then
    execute format(
      'select min(r.position) from removed r
        where not exists (select from kirby.log_retention l where l.log = %L and r.%I < kirby.now() - l.keep)',
      v_log, kirby.time_of(v_log)) into v_kept;
  else
    select min(r.position) into v_kept from removed r;
  end if;
  if v_kept is not null then
    perform kirby.fail('KB003', format('%s is append-only: its policy keeps position %s', tg_table_name, v_kept));
  end if;
  return null;
end;
$$;

-- Every log and every partition that there is gets its triggers.
do $$
declare
  v_log  text;
  v_name text;
begin
  foreach v_log in array array['message', 'job_event', 'log_line', 'state_mutation', 'secret_access', 'audit_event'] loop
    for v_name in
      select v_log union all select p.name from kirby.partitions(v_log) p
    loop
      continue when exists (select from pg_trigger t where t.tgrelid = ('kirby.' || v_name)::regclass
                                                       and t.tgname = 'by_policy');
      perform kirby.guard_log(v_log, v_name);
    end loop;
  end loop;
end;
$$;
