-- Whether an exception pauses a deployment now, or leaves it to people. Next to nothing while there are no exceptions.
create or replace function kirby.is_paused(p_deployment_id integer)
  returns boolean
  language plpgsql
  volatile
as $$
begin
  return exists (select from kirby.exception_window w where w.until_at > kirby.now())
     and kirby.paused_until(p_deployment_id, kirby.now()) is not null;
end;
$$;
