-- The ticks before a return that one of its exceptions held, since its window before that; the last p_most of them.
create or replace function kirby.held_ticks(p_tick kirby.tick, p_exception_id integer, p_most integer default null)
  returns setof timestamptz
  language sql
  volatile
as $$
  select t.at
    from kirby.tick t
   where t.deployment_id = p_tick.deployment_id and t.status = 'skipped' and p_exception_id = any (t.held_by)
     and t.at < p_tick.at
     and t.at >= coalesce((select max(w.until_at)
                             from kirby.exception_window w
                            where w.exception_id = p_exception_id and w.until_at < p_tick.at
                              and w.version = (select max(v.version) from kirby.exception_version v
                                                where v.exception_id = p_exception_id)), '-infinity')
   order by t.at desc
   limit p_most;
$$;
