-- Whether compaction removed what a version of a key was made from: the version before it, or the one that it restored.
create or replace function kirby.is_cut(p_state_id integer, p_key text, p_position bigint)
  returns boolean
  language sql
  stable
  set enable_sort = off  -- kirby.entries_of
as $$
  select case when m.op = 'delete' then false
              when m.headers ? 'restored' then
                (m.headers #>> '{restored,version}')::bigint > 0
                and not exists (select from kirby.state_mutation r
                                 where r.state_id = p_state_id and r.key = p_key and r.position < p_position
                                   and r.version = (m.headers #>> '{restored,version}')::bigint)
              else m.version > coalesce((select b.version from kirby.state_mutation b
                                          where b.state_id = p_state_id and b.key = p_key and b.position < p_position
                                          order by b.position desc limit 1), 0) + 1 end
    from kirby.state_mutation m
   where m.state_id = p_state_id and m.key = p_key and m.position = p_position;
$$;
