-- The place of a run in the queue, as a moment: a point of priority is worth a minute of waiting. So a run of low
-- priority is late, but whatever it waits for comes later at last: nothing starves.
create or replace function kirby.turn(p_not_before timestamptz, p_priority smallint)
  returns timestamptz
  language sql
  immutable
as $$
  select p_not_before - make_interval(mins => p_priority::integer);
$$;
