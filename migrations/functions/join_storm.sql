-- What has not been told yet of an environment's incidents is told in a storm, whose title says how many there are now and
-- what they have in common.
create or replace function kirby.join_storm(p_storm bigint, p_environment_id smallint)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_now   timestamptz := kirby.now();
  v_count integer;
  v_cause text;
begin
  update kirby.incident set told_in = p_storm, announce_at = null
   where id in (select i.id from kirby.incident i
                 where i.environment_id = p_environment_id and i.announce_at is not null and i.announced_at is null
                   and i.kind not in ('storm', 'retrying', 'channel') and coalesce(i.silenced_until <= v_now, true)
                 order by i.id for update skip locked);
  select count(*) into v_count from kirby.incident i where i.told_in = p_storm;
  v_cause := kirby.common_cause(p_storm);
  update kirby.incident
     set count = v_count, updated_at = v_now,
         title = left(format('%s incidents at once: %s', v_count, coalesce(v_cause, 'they have nothing in common')), 500),
         details = jsonb_strip_nulls(jsonb_build_object('stage', 'storm', 'cause', v_cause, 'kinds', (
           select jsonb_object_agg(k.kind, k.n)
             from (select i.kind, count(*) as n from kirby.incident i where i.told_in = p_storm group by i.kind) k)))
   where id = p_storm;
end;
$$;
