-- End an export: its salt is forgotten, and the audit log says how much of it left. Returns that. As kirby.own_export.
create or replace function kirby.end_export(p_export bigint, p_actor text default null)
  returns jsonb
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_export kirby.export := kirby.own_export(p_export, p_actor);
begin
  update kirby.export x set salt = null, ended_at = kirby.now() where x.id = p_export;
  perform kirby.audit(v_export.actor, 'export_ended', 'export/' || p_export, null, jsonb_build_object('sent', v_export.sent));
  return v_export.sent;
end;
$$;
