-- Whether a tick has not begun by when it must have (its deadline, from the moment on at which it was planned).
create or replace function kirby.is_late(p_tick kirby.tick, p_now timestamptz)
  returns boolean
  language sql
  volatile
as $$
  select exists (select from kirby.deadline l
                  where l.deployment_id = p_tick.deployment_id and l.kind = 'start' and l.subject = ''
                    and l.tick_at = p_tick.at and l.due_at <= p_now);
$$;
