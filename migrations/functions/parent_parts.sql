-- Parts of the log that may have children of what lies from p_low to p_high in the topics p_sources (NULL: anywhere):
-- which topics (messages) or states (mutations) of an environment, above which position, up to which, and whether
-- there are runs among the parents. By the index by parents as far as it goes (kirby.count_flow); what is newer is
-- looked at in any case. Stretches near each other are one part.
create or replace function kirby.parent_parts(
  p_environment_id smallint,
  p_sources integer[],
  p_low bigint,
  p_high bigint
)
  returns table (kind text, places integer[], after bigint, upto bigint, runs boolean)
  language sql
  stable
  set enable_seqscan = off
as $$
  with place as materialized (
    select 'message' as kind, t.id, d.messages as done
      from kirby.topic t, kirby.flow_counted d where t.environment_id = p_environment_id
     union all
    select 'mutation', s.id, d.mutations
      from kirby.state s, kirby.flow_counted d where s.environment_id = p_environment_id
  ), stretch as (
    select x.kind, x.place_id, x.position, x.runs, p.done,
           x.position - lag(x.position) over (partition by x.kind order by x.position) > 100000 as apart
      from kirby.parent_index x
      join place p on p.kind = x.kind and p.id = x.place_id
     where x.position > p_low and x.lowest <= p_high and x.highest >= p_low
       and (p_sources is null or x.source_id = 0 or x.source_id = any (p_sources))
  ), part as (
    select s.*, count(*) filter (where s.apart) over (partition by s.kind order by s.position) as number
      from stretch s
  )
  select p.kind, array_agg(distinct p.place_id), greatest(min(p.position) - 5000, p_low),
         max(least(p.position, p.done)), bool_or(p.runs)
    from part p
   group by p.kind, p.number
   union all
  select 'message', array_agg(p.id), greatest(min(p.done), p_low), 9223372036854775807, true
    from place p
   where p.kind = 'message'
  having exists (select from kirby.message m where m.position > greatest(min(p.done), p_low))
   union all
  select 'mutation', array_agg(p.id), greatest(min(p.done), p_low), 9223372036854775807, true
    from place p
   where p.kind = 'mutation'
  having exists (select from kirby.state_mutation m where m.position > greatest(min(p.done), p_low));
$$;
