-- What lies in the runs [first, -last] of arrays of parents (one after the other in one array): which run, and
-- each message of it: those of the lane of the first one.
create or replace function kirby.runs_in(p_parents bigint[])
  returns table (first bigint, last bigint, "position" bigint)
  language sql
  stable
as $$
  with run as materialized (
    select distinct r.first, -r.last as last
      from (select u.parent as first, lead(u.parent) over (order by u.n) as last
              from unnest(p_parents) with ordinality as u (parent, n)) r
     where r.first > 0 and r.last < 0
  )
  select r.first, r.last, m.position
    from run r
    join kirby.locate(array(select distinct first from run)) f on f.position = r.first and f.kind = 'message'
   cross join lateral (
         select m.position from kirby.message m
          where m.topic_id = f.place_id and m.lane = f.lane and m.position between r.first and r.last
          offset 0) m;
$$;
