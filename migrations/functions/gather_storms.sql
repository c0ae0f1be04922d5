-- When more than ten incidents of an environment begin within a minute they are told as one, which names what they have in
-- common; as long as more keep coming within a minute they join it. What was told before stays told by itself.
create or replace function kirby.gather_storms()
  returns void
  language plpgsql
  volatile
as $$
declare
  v_now   timestamptz := kirby.now();
  v_place record;
  v_storm bigint;
begin
  for v_place in
    select i.environment_id, max(i.opened_at) as newest
      from kirby.incident i
     where i.announce_at <= v_now and i.announced_at is null and i.environment_id is not null
       and i.kind not in ('storm', 'retrying', 'channel')
     group by i.environment_id
  loop
    select s.id into v_storm from kirby.incident s
     where s.environment_id = v_place.environment_id and s.kind = 'storm' and s.status = 'open'
       and s.updated_at > v_place.newest - interval '1 minute' and s.opened_at > v_now - interval '1 day'
     order by s.id desc limit 1;
    if v_storm is null and 10 < (
      select count(*) from kirby.incident i
       where i.environment_id = v_place.environment_id and i.opened_at > v_place.newest - interval '1 minute'
         and i.told_in is null and i.kind not in ('storm', 'retrying', 'channel') and coalesce(i.silenced_until <= v_now, true))
    then
      v_storm := kirby.open_incident(v_place.environment_id, null, 'storm', 'since ' || v_now, 'many incidents at once');
    end if;
    if v_storm is not null then
      perform kirby.join_storm(v_storm, v_place.environment_id);
    end if;
  end loop;
end;
$$;
