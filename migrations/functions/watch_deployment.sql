-- Trigger: what of a deployment is looked at again and again, as its version says: each replica of a daemon (that it
-- runs: kind start; that it is heard of: heartbeat), and each topic in which messages are expected (output). On the
-- deployment and on its versions: whichever is written last.
create or replace function kirby.watch_deployment()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id      integer := case tg_table_name when 'deployment' then to_jsonb(new) ->> 'id'
                         else to_jsonb(new) ->> 'deployment_id' end;
  v_version kirby.deployment_version;
  v_daemon  boolean;
begin
  select v.* into v_version
    from kirby.deployment d
    join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
   where d.id = v_id;
  if not found then
    return null;
  end if;
  select j.kind = 'daemon' into v_daemon
    from kirby.deployment d join kirby.job j on j.id = d.job_id where d.id = v_id;

  delete from kirby.deadline where deployment_id = v_id and tick_at = '-infinity';
  insert into kirby.deadline (deployment_id, kind, subject, due_at)
  select v_id, a.kind, a.subject, kirby.now() + make_interval(secs => a.seconds)
    from (select 'start', r.n::text, coalesce(v_version.start_by, 600)
            from generate_series(0, v_version.replicas - 1) as r (n) where v_daemon
           union all
          select 'heartbeat', r.n::text, v_version.heartbeat
            from generate_series(0, v_version.replicas - 1) as r (n) where v_daemon and v_version.heartbeat is not null
           union all
          select 'output', e.key, e.value::double precision
            from jsonb_each_text(v_version.expects) as e) as a (kind, subject, seconds);
  return null;
end;
$$;

create or replace trigger watch_deployment
  after insert or update of version on kirby.deployment
  for each row execute function kirby.watch_deployment();
create or replace trigger watch_deployment
  after insert on kirby.deployment_version
  for each row execute function kirby.watch_deployment();
