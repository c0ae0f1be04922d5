-- The first position of a topic (NULL: of any) whose message was recorded at p_when or later; one beyond the
-- horizon if there is none yet. No message of it that was or will be recorded at or after p_when lies before.
--
-- Stretches whose latest moment is below p_when have none; below the horizon nothing can appear later. What is not
-- counted yet is not in the index by time, and is looked at. KB007.
create or replace function kirby.first_since(p_topic_id integer, p_when timestamptz)
  returns bigint
  language plpgsql
  volatile
  set enable_seqscan = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_horizon bigint;
  v_counted bigint;
  v_stretch bigint := -1;
  v_found   bigint;
begin
  perform kirby.check_isolation();
  v_horizon := case when p_topic_id is null then kirby.horizon_of_all() else kirby.horizon(p_topic_id) end;
  v_counted := kirby.counted_to(p_topic_id);

  if p_topic_id is not null then
    select min(kirby.first_in_lane(p_topic_id, l.lane::smallint, p_when, v_counted, s.position)) into v_found
      from kirby.topic t
     cross join lateral generate_series(0, t.lanes - 1) as l (lane)
     cross join lateral (select kirby.stretch_since(-1, p_when, v_counted) as position) s
     where t.id = p_topic_id;
  else
    loop
      v_stretch := kirby.stretch_since(v_stretch, p_when, v_counted);
      select min(m.position) into v_found from kirby.message m
       where m.position > coalesce(v_stretch - 5000, v_counted)
         and m.position <= coalesce(v_stretch, v_horizon) and m.recorded_at >= p_when;
      exit when v_found is not null or v_stretch is null;
    end loop;
  end if;
  return least(v_found, v_horizon + 1);
end;
$$;
