-- Hours of the flow that are not what the log says, as far as it is counted. Where retention or compaction removed
-- something, the log has less.
create or replace function kirby.verify_flow()
  returns table (key text, expected jsonb, found jsonb)
  language sql
  stable
as $$
  with expected as (
    select b.environment_id, b.hour, b.source_id, b.job, b.release, b.kind, b.place_id, sum(b.made) as made,
           sum(b.replays) as replays, min(b.first_at) as first_at, max(b.last_at) as last_at
      from kirby.flow_counted d
     cross join lateral kirby.flow_between(0, d.messages, 0, d.mutations) b
     group by 1, 2, 3, 4, 5, 6, 7
  ), gone as (
    select 'message' as kind, r.topic_id as place_id, r.gone_at as at from kirby.topic_retention r where r.gone_to > 0
     union all
    select 'mutation', d.state_id, max(d.day) from kirby.compacted_day d group by d.state_id
  )
  select format('%s %s: %s > %s > %s %s', to_char(k.hour at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), n.name,
                coalesce(t.name, '-'), coalesce(k.job, '-'), k.kind, k.place_id),
         case when e.hour is not null then jsonb_build_object('made', e.made, 'replays', e.replays, 'first', e.first_at, 'last', e.last_at) end,
         case when f.hour is not null then jsonb_build_object('made', f.made, 'replays', f.replays, 'first', f.first_at, 'last', f.last_at) end
    from expected e
    full join kirby.flow f
      on (f.environment_id, f.hour, f.kind, f.place_id) = (e.environment_id, e.hour, e.kind, e.place_id)
     and coalesce(f.source_id, 0) = coalesce(e.source_id, 0)
     and coalesce(f.job, '') = coalesce(e.job, '') and coalesce(f.release, '') = coalesce(e.release, '')
   cross join lateral (
         select coalesce(e.environment_id, f.environment_id) as environment_id, coalesce(e.hour, f.hour) as hour,
                coalesce(e.source_id, f.source_id) as source_id, coalesce(e.job, f.job) as job,
                coalesce(e.kind, f.kind) as kind, coalesce(e.place_id, f.place_id) as place_id) k
    left join kirby.environment n on n.id = k.environment_id
    left join kirby.topic t on t.id = k.source_id
    left join gone g on g.kind = k.kind and g.place_id = k.place_id
   where (e.made, e.replays, e.first_at, e.last_at) is distinct from (f.made, f.replays, f.first_at, f.last_at)
     and not coalesce(k.hour <= g.at and f.made > coalesce(e.made, 0), false);
$$;
