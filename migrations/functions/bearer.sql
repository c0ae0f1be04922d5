-- Who is asking, to read: the holder of the session setting kirby.token (a run or an application), or,
-- without one, a login that is a member of kirby_server (the server, an administrator in psql). A token
-- that is for no environment in particular takes kirby.environment, else dev.
-- KB003: no valid token. KB002: no such environment.
create or replace function kirby.bearer(
  out environment_id smallint,
  out run_id bigint,
  out actor text,
  out role text
)
  language plpgsql
  stable
as $$
declare
  v_token       text := nullif(current_setting('kirby.token', true), '');
  v_environment text := nullif(current_setting('kirby.environment', true), '');
  v_name        text;
begin
  if v_token is not null then
    select e.id, t.run_id, coalesce('run ' || t.run_id, case when t.role is null then t.name else 'token ' || t.name end),
           t.role, e.name
      into environment_id, run_id, actor, role, v_name
      from kirby.token t
      left join kirby.environment e on e.id = t.environment_id
     where t.hash = sha256(convert_to(v_token, 'UTF8'))
       and t.revoked_at is null
       and (t.expires_at is null or t.expires_at > kirby.now());
    if not found then
      perform kirby.fail('KB003', 'the token in kirby.token is not valid: it was revoked, has expired, its run has ended, or it was never given');
    elsif v_environment <> v_name then
      perform kirby.fail('KB003', format('this token belongs to environment %s, not to %s', v_name, v_environment));
    end if;
  elsif pg_has_role(session_user, 'kirby_server', 'member') then
    actor := session_user;
  else
    perform kirby.fail('KB003', format('%s needs a token: set kirby.token, or KIRBY_TOKEN for a script', session_user));
  end if;
  if environment_id is null then
    v_environment := coalesce(v_environment, 'dev');
    select e.id into environment_id from kirby.environment e where e.name = v_environment;
    if not found then
      perform kirby.fail('KB002', format('there is no environment %s', v_environment));
    end if;
  end if;
end;
$$;
