-- Announce that this transaction is about to write to a topic: positions that it takes afterwards are
-- all above the announced bound. To be called before nextval('kirby.position'). See kirby.horizon.
--
-- The announcement is a shared advisory lock (topic, bound): it conflicts with nobody, and it goes away
-- with the transaction, or with the savepoint it was taken in. One per transaction and topic is
-- enough, the first bound being the lowest; kirby.announced remembers that there may be one already.
-- A setting can be forged, so it is only a hint: pg_locks decides.
create or replace function kirby.announce(p_topic_id integer)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_announced text := coalesce(current_setting('kirby.announced', true), '');
  v_mark      text := ',' || p_topic_id || ',';
begin
  if strpos(v_announced, v_mark) > 0 then  -- by itself: else the query would be planned each time
    if exists (
      select from pg_locks
       where locktype = 'advisory'
         and pid = pg_backend_pid()
         and objsubid = 2
         and classid::bigint = kirby.topic_lock(p_topic_id)
    ) then
      return;
    end if;
  end if;

  perform pg_advisory_xact_lock_shared(kirby.topic_lock(p_topic_id), (last_value & 2147483647)::integer)
     from kirby.position;
  v_announced := set_config('kirby.announced', v_announced || v_mark, true);
end;
$$;
