-- The last position of a topic up to which retention may remove its messages: they are older than it keeps
-- them, counted, and every subscription is done with them (unless that is not asked for). 0: none. KB007.
create or replace function kirby.expired_to(p_topic_id integer)
  returns bigint
  language plpgsql
  volatile
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_policy kirby.topic_retention;
begin
  select * into v_policy from kirby.topic_retention r where r.topic_id = p_topic_id;
  if v_policy.keep is null then
    return 0;
  end if;
  return least(
    kirby.first_since(p_topic_id, kirby.now() - v_policy.keep) - 1,
    kirby.counted_to(p_topic_id),
    (select min(u.position) - 1 from kirby.unread(p_topic_id) u where not v_policy.even_unread));
end;
$$;
