-- Skip a tick, and say why: in its row and in the log.
create or replace function kirby.skip_tick(p_tick kirby.tick, p_reason text, p_held_by integer[])
  returns void
  language plpgsql
  volatile
as $$
begin
  update kirby.tick set status = 'skipped', reason = p_reason, held_by = p_held_by
   where deployment_id = p_tick.deployment_id and at = p_tick.at;
  perform kirby.append_job_event(null, p_tick.deployment_id, 'tick_skipped', jsonb_strip_nulls(jsonb_build_object(
            'at', p_tick.at, 'reason', p_reason, 'exceptions', nullif(to_jsonb(p_held_by), '[]'))), 'kirby');
end;
$$;
