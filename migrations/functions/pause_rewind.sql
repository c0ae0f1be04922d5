-- Pause a rewind, or let it go on; audited. Meanwhile its lanes hand out nothing; what is in hands is settled.
-- KB002. KB004: it does not run, or is not paused.
create or replace function kirby.pause_rewind(p_id bigint, p_paused boolean, p_actor text, p_reason text default null)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_rewind kirby.rewind;
begin
  select * into v_rewind from kirby.rewind w where w.id = p_id for update;
  if not found then
    perform kirby.fail('KB002', format('there is no rewind %s', p_id));
  elsif v_rewind.status <> (case when p_paused then 'running' else 'paused' end) then
    perform kirby.fail('KB004', format('rewind %s is %s', p_id, v_rewind.status));
  end if;
  update kirby.rewind set status = case when p_paused then 'paused' else 'running' end where id = p_id;
  perform kirby.audit(p_actor, case when p_paused then 'rewind_paused' else 'rewind_resumed' end, 'rewind/' || p_id,
                      p_reason => p_reason);
  if not p_paused then
    perform pg_notify('kirby_topic_' || v_rewind.topic_id, '');
  end if;
end;
$$;
