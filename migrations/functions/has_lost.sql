-- Whether compaction removed versions of a key behind a position (0: from the first one on).
create or replace function kirby.has_lost(p_state_id integer, p_key text, p_position bigint)
  returns boolean
  language sql
  stable
  set enable_sort = off  -- kirby.entries_of
as $$
  select coalesce((
    select l.version - coalesce(b.version, 0) > (
             select count(*) from kirby.state_mutation m
              where m.state_id = p_state_id and m.key = p_key and m.position > p_position and m.position <= c.exact_from)
      from kirby.compaction c
     cross join lateral (
           select m.version from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = p_key and m.position > p_position and m.position <= c.exact_from
            order by m.position desc limit 1) l
      left join lateral (
           select m.version from kirby.state_mutation m
            where m.state_id = p_state_id and m.key = p_key and m.position <= p_position
            order by m.position desc limit 1) b on true
     where c.state_id = p_state_id and p_position < c.exact_from), false);
$$;
