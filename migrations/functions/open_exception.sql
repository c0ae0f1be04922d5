-- What an exception says that is not over, locked against another change. KB002: there is none. KB004: it is over.
create or replace function kirby.open_exception(p_id integer)
  returns kirby.exception_version
  language plpgsql
  volatile
as $$
declare
  v_version kirby.exception_version;
begin
  perform from kirby.schedule_exception where id = p_id for update;
  select * into v_version from kirby.exception_version where exception_id = p_id order by version desc limit 1;
  if not found then
    perform kirby.fail('KB002', format('there is no exception %s', p_id));
  elsif v_version.until_at <= kirby.now() then
    perform kirby.fail('KB004', format('exception %s is over since %s UTC: add a new one', p_id,
                                       to_char(v_version.until_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI')));
  end if;
  return v_version;
end;
$$;
