-- What a notice says of an exception (kirby.tell_exception), or null if nothing is told of it.
create or replace function kirby.exception_notice(p_window kirby.exception_window, p_event text, p_counts jsonb)
  returns jsonb
  language sql
  volatile
as $$
  select jsonb_build_object(
           'event', p_event, 'kind', 'exception', 'exception', x.id, 'environment', e.name,
           'scope', x.scope, 'target', x.target, 'effect', v.effect, 'from', p_window.from_at, 'until', p_window.until_at,
           'reason', v.reason, 'ticket', v.ticket, 'actor', v.actor, 'on_return', v.on_return, 'return_most', v.return_most,
           'ended_by', case when v.change = 'ended' then v.actor end, 'at', kirby.now(),
           'title', case p_event
             when 'ending' then format('%s of %s, at %s UTC',
               case v.effect when 'pause' then 'pause' when 'manual' then 'hold' when 'skip' then 'skipped ticks'
                             else 'slow-down' end,
               said.what, to_char(p_window.until_at at time zone 'UTC', 'HH24:MI'))
             else format('%s; %s held back', said.what, case p_counts ->> 'held'
               when '0' then 'no tick was' when '1' then '1 tick was' else (p_counts ->> 'held') || ' ticks were' end)
             end) || p_counts
    from kirby.schedule_exception x
    join kirby.exception_version v on v.exception_id = x.id and v.version = p_window.version
    left join kirby.environment e on e.id = x.environment_id
   cross join lateral (
         select case when x.scope in ('environment', 'everything') then 'everything'
                     else x.scope || ' ' || x.target end as what) said
   where x.id = p_window.exception_id and v.recurs = ''
     and not exists (select from kirby.exception_version o
                      where o.exception_id = x.id
                        and (o.version > v.version or o.version = 1 and o.actor = 'kirby'));
$$;
