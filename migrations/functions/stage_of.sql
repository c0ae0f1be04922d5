-- At which stage a run that was to start has come to a stand: {stage, text, cause}. No run: its tick was never fired.
-- not_fired · not_claimed · not_started. cause: what others that are late for the same reason have in common.
create or replace function kirby.stage_of(p_run kirby.run)
  returns jsonb
  language plpgsql
  volatile
as $$
declare
  v_host text;
  v_why  text;
begin
  if p_run.id is null then
    return jsonb_build_object('stage', 'not_fired', 'text', 'it was planned, but nobody fired it',
                              'cause', 'the scheduler did not fire ticks');
  elsif p_run.status = 'queued' then
    v_why := kirby.why_waiting(p_run);
    return jsonb_build_object('stage', 'not_claimed', 'text', format('queued, but %s', v_why), 'cause', v_why);
  end if;
  select s.host into v_host from kirby.supervisor s where s.id = p_run.supervisor_id;
  return jsonb_build_object('stage', 'not_started', 'host', v_host,
                            'text', format('claimed by %s, but it still prepares its virtualenv', coalesce(v_host, '?')),
                            'cause', format('%s prepares virtualenvs', coalesce(v_host, '?')));
end;
$$;
