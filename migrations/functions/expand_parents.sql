-- The positions that an array of parents stands for; if there are runs in it ascending, and each once. A run
-- [first, -last] is all messages of the lane of the first one, from the first to the last: a handler that is given
-- hundreds of messages at once names them so. Of what retention removed the two ends are left.
create or replace function kirby.expand_parents(p_parents bigint[])
  returns bigint[]
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if 0 > any (p_parents) then
    return (
      select array_agg(distinct e.position order by e.position)
        from (select abs(u.parent) as position from unnest(p_parents) as u (parent)
               union all
              select r.position from kirby.runs_in(p_parents) r) e);
  end if;
  return p_parents;
end;
$$;
