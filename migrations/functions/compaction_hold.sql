-- The rewind that holds up the compaction of the states of an environment, if one does: it sets states back and is not
-- over, so what lies behind its position has to stay, and so has the version before the first of it.
create or replace function kirby.compaction_hold(p_environment_id smallint, out rewind_id bigint, out "position" bigint)
  language sql
  stable
as $$
  select w.id, w.after
    from kirby.rewind w
   where w.environment_id = p_environment_id and w.states
     and w.status in ('planned', 'preparing', 'running', 'paused', 'aborting')
   order by w.after, w.id
   limit 1;
$$;
