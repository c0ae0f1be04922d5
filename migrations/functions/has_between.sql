-- Whether a topic has a message above p_after, up to p_last.
create or replace function kirby.has_between(p_topic_id integer, p_after bigint, p_last bigint)
  returns boolean
  language plpgsql
  volatile
  set plan_cache_mode = force_generic_plan
as $$
begin
  return exists (
    select from kirby.topic t
     cross join lateral generate_series(0, t.lanes - 1) as l (lane)
      join kirby.message m on m.topic_id = t.id and m.lane = l.lane
                          and m.position > p_after and m.position <= p_last
     where t.id = p_topic_id);
end;
$$;
