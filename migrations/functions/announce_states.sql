-- Announce that this transaction is about to change states: positions that it takes afterwards are all above
-- the announced bound. As kirby.announce, with one lock space for all states; see kirby.state_horizon.
create or replace function kirby.announce_states()
  returns void
  language plpgsql
  volatile
as $$
declare
  v_announced text := coalesce(current_setting('kirby.announced', true), '');
begin
  if strpos(v_announced, ',M,') > 0 then
    if exists (
      select from pg_locks
       where locktype = 'advisory'
         and pid = pg_backend_pid()
         and objsubid = 2
         and classid::bigint = kirby.state_lock()
    ) then
      return;
    end if;
  end if;

  perform pg_advisory_xact_lock_shared(kirby.state_lock(), (last_value & 2147483647)::integer)
     from kirby.position;
  v_announced := set_config('kirby.announced', v_announced || ',M,', true);
end;
$$;
