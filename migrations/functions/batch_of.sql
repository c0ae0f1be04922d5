-- What is handed out of a claim, in the order of positions; those that are delivered by themselves are
-- not in a range. What a person made of a parked message goes before what was published. What a rewind delivers
-- again has its id in its headers, as "replay"; what had never been settled has not.
create or replace function kirby.batch_of(p_claim kirby.claim, p_topic_id integer)
  returns kirby.batch
  language plpgsql
  volatile
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_batch kirby.batch;
  v_apart boolean := exists (select from kirby.due d where d.subscription_id = p_claim.subscription_id);
begin
  if p_claim.kind = 'due' then
    select p_claim.id, p_claim.fence, p_claim.attempt, array[m.position], array[m.key],
           json_build_array(coalesce(d.payload, m.payload)),
           case when m.headers is not null then json_build_array(m.headers) end,
           array[m.recorded_at], array[m.run_id],
           case when m.parents is not null then json_build_array(m.parents) end, true
      into v_batch
      from kirby.message m
      left join kirby.due d on d.subscription_id = p_claim.subscription_id and d.position = m.position
     where m.topic_id = p_topic_id and m.lane = p_claim.lane and m.position = p_claim.first;
  else
    select p_claim.id, p_claim.fence, p_claim.attempt, array_agg(m.position), array_agg(m.key),
           json_agg(m.payload),
           case when count(m.headers) > 0 then json_agg(m.headers) end,
           array_agg(m.recorded_at), array_agg(m.run_id),
           case when count(m.parents) > 0 then json_agg(m.parents) end, not v_apart
      into v_batch
      from (select * from kirby.message r
             where r.topic_id = p_topic_id and r.lane = p_claim.lane
               and r.position between p_claim.first and p_claim.upto
               and (not v_apart or not exists (
                     select from kirby.due d
                      where d.subscription_id = p_claim.subscription_id and d.position = r.position))
             order by r.position) m;
    if v_apart then
      v_batch.dense := not exists (
        select from kirby.due d
         where d.subscription_id = p_claim.subscription_id and d.lane = p_claim.lane
           and d.position between v_batch.positions[1] and v_batch.positions[cardinality(v_batch.positions)]);
    end if;
  end if;
  if p_claim.rewind_id is not null then
    v_batch.headers := kirby.replay_headers(p_claim, v_batch.positions, v_batch.headers);
  end if;
  return v_batch;
end;
$$;
