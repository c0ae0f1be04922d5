-- Forget the effects of messages that retention has removed, at most p_most; returns how many. Only what was confirmed
-- at least a day ago: nobody has the message in hands any more, and it cannot come again. One with a key of its own
-- stays, since another message may name it, and so does one in doubt.
create or replace function kirby.forget_effects(p_most integer default 5000)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_gone integer;
begin
  delete from kirby.effect f
   where f.id in (
         select o.id
           from kirby.topic_retention r
           join kirby.subscription s on s.topic_id = r.topic_id
          cross join lateral (
                select e.id from kirby.effect e
                 where e.subscription_id = s.id and e.of_message and e.status = 'confirmed'
                   and e.position <= r.gone_to and e.confirmed_at < kirby.now() - interval '1 day'
                 order by e.position limit p_most) o
          limit p_most);
  get diagnostics v_gone = row_count;
  return v_gone;
end;
$$;
