-- The first position of a lane whose message was recorded at p_when or later; NULL: none. p_stretch: the first
-- stretch that has such a message of whichever topic. As a rule it is found there, or is the next one
-- behind it; where a clock was set back, the search goes on at the next such stretch.
create or replace function kirby.first_in_lane(
  p_topic_id integer,
  p_lane smallint,
  p_when timestamptz,
  p_counted bigint,
  p_stretch bigint
)
  returns bigint
  language plpgsql
  volatile
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_stretch bigint := p_stretch;
  v_next    record;
  v_found   bigint;
begin
  while v_stretch is not null loop
    select m.position into v_found from kirby.message m
     where m.topic_id = p_topic_id and m.lane = p_lane
       and m.position > v_stretch - 5000 and m.position <= v_stretch and coalesce(m.recorded_at >= p_when, false)
     order by m.position limit 1;
    if found then
      return v_found;
    end if;
    select m.position, m.recorded_at into v_next from kirby.message m
     where m.topic_id = p_topic_id and m.lane = p_lane and m.position > v_stretch
     order by m.position limit 1;
    if not found or v_next.recorded_at >= p_when then
      return v_next.position;
    end if;
    v_stretch := kirby.stretch_since(v_next.position - 1, p_when, p_counted);
  end loop;

  select m.position into v_found from kirby.message m
   where m.topic_id = p_topic_id and m.lane = p_lane and m.position > p_counted and coalesce(m.recorded_at >= p_when, false)
   order by m.position limit 1;
  return v_found;
end;
$$;
