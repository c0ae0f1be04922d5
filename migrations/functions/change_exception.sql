-- Change an exception that is not over: p_document has what becomes different; of a recurring one p_document.windows are
-- all windows, those that are over too (none given: it keeps those that have begun). Returns its version. KB001, KB002, KB004.
create or replace function kirby.change_exception(p_id integer, p_document jsonb, p_actor text, p_reason text default null)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before kirby.exception_version := kirby.open_exception(p_id);
  v_after  jsonb := to_jsonb(v_before) || p_document || jsonb_build_object('reason', coalesce(nullif(p_reason, ''), v_before.reason));
begin
  if v_after ->> 'recurs' <> '' then
    v_after := v_after || jsonb_build_object('windows', coalesce(
                 p_document -> 'windows', kirby.windows_begun(v_before, (v_after ->> 'until_at')::timestamptz)));
  end if;
  return kirby.put_exception(p_id, 'changed', v_after, p_actor);
end;
$$;
