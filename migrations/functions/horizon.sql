-- The position up to which a topic may be read: nothing at or below it can appear later.
--
-- A sequence value is not a commit order: a reader at 9 may never see 8, whose transaction commits
-- later. So writers announce a lower bound first (kirby.announce), and readers stop below all bounds:
--
--   1. high := last_value of the sequence
--   2. low  := the lowest bound that is announced for the topic, from pg_locks
--   3. read rows with position <= least(high, low)          -- by the caller, a statement of its own
--
-- Proof. Take a row at position p <= high. Its writer took p before step 1, and announced a bound
-- below p before that. At step 2 the announcement is either still held: then low < p, and the row is
-- beyond the horizon; or its transaction has ended: a commit is visible before its locks are released,
-- so step 3, whose snapshot is taken later, sees the row (or it was rolled back, and never will be).
-- Hence what lies at or below the horizon is complete, and stays so.
--
-- Each statement of a VOLATILE function takes a snapshot of its own in READ COMMITTED, and only there:
-- elsewhere step 3 would see a snapshot older than step 2. KB007: another isolation level.
-- A standby has no pg_locks of the primary: KB007 too.
--
-- A bound is announced by its low 31 bits, and rebuilt against high: at most 2^27 above it (it may have
-- been announced after step 1), else below it. That holds for a transaction that stays open while
-- fewer than 2^31 - 2^27 positions are taken.
create or replace function kirby.horizon(p_topic_id integer)
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_high bigint;
  v_low  bigint;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform kirby.fail('KB007', 'the log is read in READ COMMITTED only, this transaction is in '
                                || current_setting('transaction_isolation'));
  elsif pg_is_in_recovery() then
    perform kirby.fail('KB007', 'the horizon is known on the primary only, this is a standby');
  end if;

  -- step 1
  select last_value into v_high from kirby.position;

  -- step 2
  select min(kirby.rebuilt(bound, v_high))
    into v_low
    from (select objid::bigint as bound
            from pg_locks
           where locktype = 'advisory'
             and database = (select oid from pg_database where datname = current_database())
             and classid::bigint = kirby.topic_lock(p_topic_id)
             and objsubid = 2) announced;

  -- step 3 is the caller's next statement
  return least(v_high, v_low);
end;
$$;
