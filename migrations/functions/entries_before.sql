-- What a state was before the messages behind a position had any effect, by key, after a key: as at the position
-- (kirby.entries_at), and with what became of earlier messages since, as far as nothing later had changed the key. So a
-- slice of messages that begins there finds the state as its handlers did, however late they were. A mutation
-- that was made of messages from both sides belongs to the later ones; one without parents to its own position.
create or replace function kirby.entries_before(p_state_id integer, p_position bigint, p_after text, p_limit integer)
  returns table (key text, value jsonb)
  language sql
  stable
  set jit = off
as $$
  with since as materialized (
    select m.key, m.version, m.op, m.value,
           coalesce((select max(abs(p.position)) from unnest(m.parents) as p (position)), m.position) > p_position as later
      from kirby.state_mutation m
     where m.state_id = p_state_id and m.position > p_position and (p_after is null or m.key > p_after)
  ), first as (
    select s.key, min(s.version) filter (where s.later) as version from since s group by s.key
  ), late as materialized (
    select distinct on (s.key) s.key, s.op, s.value
      from since s join first f on f.key = s.key
     where not s.later and (f.version is null or s.version < f.version)
     order by s.key, s.version desc
  )
  select e.key, e.value
    from (select a.key collate "C" as key, a.value from kirby.entries_at(p_state_id, p_position, null, null, '', p_after, null) a
           where not exists (select from late l where l.key = a.key collate "C")
           union all
          select l.key, l.value from late l where l.op = 'set') e
   order by e.key
   limit p_limit;
$$;
