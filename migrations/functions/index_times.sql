-- Enter stretches of messages that were counted just now into the index by time; called with the row of
-- kirby.counted locked. A row's latest is that of all before it too, so it never goes down.
create or replace function kirby.index_times(
  p_stretches bigint[],
  p_latest timestamptz[],
  p_earliest timestamptz[]
)
  returns void
  language plpgsql
  volatile
as $$
begin
  insert into kirby.time_index as i (position, latest, earliest)
  select s.position, greatest(max(s.latest) over (order by s.position), before.latest), s.earliest
    from (select (n.stretch + 1) * 4096 - 1 as position, n.latest, n.earliest
            from unnest(p_stretches, p_latest, p_earliest) as n (stretch, latest, earliest)) s
    left join lateral (select b.latest from kirby.time_index b
                        where b.position <= s.position order by b.position desc limit 1) before on true
      on conflict (position) do update
     set latest = greatest(i.latest, excluded.latest), earliest = least(i.earliest, excluded.earliest)
   where i.latest < excluded.latest or i.earliest > excluded.earliest;

  -- What was late may be later than what lies behind it.
  update kirby.time_index i
     set latest = s.latest
    from (select b.position, max(n.latest) as latest
            from unnest(p_stretches, p_latest) as n (stretch, latest)
            join kirby.time_index b on b.position > (n.stretch + 1) * 4096 - 1 and b.latest < n.latest
           group by b.position) s
   where i.position = s.position;
end;
$$;
