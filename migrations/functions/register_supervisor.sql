-- Register a supervisor, or renew its lease. A new one of the same folder retires its predecessors
-- there: it holds the folder's lock, so they are dead. KB005: its lease ended and others took over.
-- KB009: it is too old, or newer than this schema.
create or replace function kirby.register_supervisor(
  p_id uuid,
  p_host text,
  p_folder text,
  p_pid integer,
  p_slots integer,
  p_lease interval default '15 seconds',
  p_labels text[] default '{}',
  p_version text default '',
  p_protocol integer default 1
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old  uuid;
  v_ours integer := kirby.server_protocol();
begin
  if p_protocol < v_ours - 1 then
    perform kirby.fail('KB009', format('this Kirby is too old for the schema of its database: upgrade Kirby on %s', p_host));
  elsif p_protocol > v_ours then
    perform kirby.fail('KB009', 'this Kirby is newer than the schema of its database: run ''kirby db migrate''');
  end if;

  update kirby.supervisor set lease_until = kirby.now() + p_lease
   where id = p_id and ended_at is null;
  if found then
    return;
  elsif exists (select from kirby.supervisor where id = p_id) then
    perform kirby.fail('KB005', 'this supervisor lost its lease: its runs were given to others');
  end if;

  for v_old in
    select id from kirby.supervisor where host = p_host and folder = p_folder and ended_at is null
  loop
    perform kirby.end_supervisor(v_old, 'the supervisor was restarted');
  end loop;
  insert into kirby.supervisor (id, host, folder, pid, slots, lease_until, labels, version, protocol)
  values (p_id, p_host, p_folder, p_pid, p_slots, kirby.now() + p_lease, p_labels, p_version, p_protocol);
end;
$$;
