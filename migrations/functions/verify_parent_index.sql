-- Stretches of the index by parents that do not cover what lies in them, as far as it is counted: children there
-- would not be found.
create or replace function kirby.verify_parent_index()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  select format('%s %s of %s up to %s', e.kind, e.place_id, e.source_id, (e.stretch + 1) * 5000 - 1),
         jsonb_build_object('lowest', e.lowest, 'highest', e.highest, 'runs', e.runs),
         case when x.position is not null
              then jsonb_build_object('lowest', x.lowest, 'highest', x.highest, 'runs', x.runs) end
    from (select b.kind, b.place_id, coalesce(b.source_id, 0) as source_id, b.stretch, min(b.lowest) as lowest,
                 max(b.highest) as highest, bool_or(b.runs) as runs
            from kirby.flow_counted d
           cross join lateral kirby.flow_between(0, d.messages, 0, d.mutations) b
           where b.lowest is not null
           group by 1, 2, 3, 4) e
    left join kirby.parent_index x
      on x.kind = e.kind and x.place_id = e.place_id and x.source_id = e.source_id
     and x.position = (e.stretch + 1) * 5000 - 1
   where x.position is null or x.lowest > e.lowest or x.highest < e.highest or e.runs and not x.runs;
$$;
