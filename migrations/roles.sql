-- The roles of DESIGN §4.4. They belong to the whole cluster, so they are made wherever a schema is
-- laid: a restored dump finds them again. They cannot log in until somebody gives them a password.
do $$
declare
  v_role text;
begin
  foreach v_role in array array['kirby_owner', 'kirby_server', 'kirby_worker', 'kirby_auditor'] loop
    if not exists (select from pg_roles where rolname = v_role) then
      begin
        execute format('create role %I nologin', v_role);
      exception when duplicate_object or unique_violation then
        null;  -- another database of this cluster is being migrated at the same moment
      end;
    end if;
  end loop;

  -- Who holds up the log, and for how long, is in the statistics of other sessions.
  if not pg_has_role('kirby_server', 'pg_read_all_stats', 'member') then
    begin
      grant pg_read_all_stats to kirby_server;
    exception when insufficient_privilege or unique_violation then
      null;  -- not this administrator's to give: kirby db check says what is missing
    end;
  end if;

  if not pg_has_role(current_user, 'kirby_owner', 'member') then
    execute format('grant kirby_owner to %I', current_user);
  end if;
  if not has_database_privilege('kirby_owner', current_database(), 'create') then
    execute format('grant create on database %I to kirby_owner', current_database());
  end if;
end;
$$;
