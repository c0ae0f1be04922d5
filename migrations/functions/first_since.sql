-- The first position of a topic (NULL: of any) whose message was recorded at p_when or later; one beyond the
-- horizon if there is none yet. No message of it that was or will be recorded at or after p_when lies before.
--
-- Everything up to the last stretch whose latest moment (of all before it too) is below p_when was recorded
-- before it, as far as the topic is counted; from there on rows are looked at. Below the horizon nothing
-- can appear later. KB007.
create or replace function kirby.first_since(p_topic_id integer, p_when timestamptz)
  returns bigint
  language plpgsql
  volatile
  set enable_seqscan = off
as $$
declare
  v_horizon bigint;
  v_lanes   integer;
  v_before  bigint;
  v_end     bigint;
  v_found   bigint;
begin
  perform kirby.check_isolation();
  v_horizon := case when p_topic_id is null then kirby.horizon_of_all() else kirby.horizon(p_topic_id) end;

  select least(kirby.counted_to(p_topic_id), coalesce((
           select i.position from kirby.time_index i where i.latest < p_when
            order by i.latest desc, i.position desc limit 1), 0))
    into v_before;

  if p_topic_id is not null then
    select t.lanes into v_lanes from kirby.topic t where t.id = p_topic_id;
    select min(m.position) into v_found
      from generate_series(0, v_lanes - 1) as l (lane)
     cross join lateral (
           select m.position from kirby.message m
            where m.topic_id = p_topic_id and m.lane = l.lane and m.position > v_before
              and m.recorded_at >= p_when
            order by m.position limit 1) m;
  else
    -- Stretch by stretch, by the BRIN index: the first one nearly always has it.
    loop
      select min(i.position) into v_end from kirby.time_index i where i.position > v_before;
      select min(m.position) into v_found from kirby.message m
       where m.position > v_before and m.position <= coalesce(v_end, v_horizon) and m.recorded_at >= p_when;
      exit when v_found is not null or v_end is null;
      v_before := v_end;
    end loop;
  end if;
  return least(v_found, v_horizon + 1);
end;
$$;
