-- Append messages with more to them; besides what append_messages takes:
--   d  deliver_at     i  an id of the producer's own: the same again in this topic is a no-op
--   x  expires_at     b  band     r  the position of the task that this message is the result of
-- Returns their positions in the order given; of one that was there already, the old position.
create or replace function kirby.append_special(
  p_topic kirby.topic,
  p_run_id bigint,
  p_messages jsonb
)
  returns bigint[]
  language plpgsql
  volatile
as $$
declare
  v_positions bigint[];
  v_fresh     bigint[] := '{}';
  v_result    bigint[];
begin
  if not p_topic.sifted and p_messages @? '$[*] ? (exists (@.d) || exists (@.x))' then
    update kirby.topic set sifted = true where id = p_topic.id and not sifted;
  end if;

  select array_agg(p.position) into v_positions
    from (select nextval('kirby.position') as position
            from generate_series(1, jsonb_array_length(p_messages))) p;

  -- Somebody who publishes the same id at this moment is waited for.
  with fresh as (
    insert into kirby.produced (topic_id, id, lane, position)
    select p_topic.id, m.item ->> 'i',
           kirby.lane_at(p_topic, v_positions[m.n], m.item ->> 'k', (m.item ->> 'b')::smallint), v_positions[m.n]
      from jsonb_array_elements(p_messages) with ordinality as m (item, n)
     where m.item ? 'i'
     order by m.item ->> 'i', m.n  -- all who publish the same ids take them in the same order
        on conflict do nothing
    returning position
  )
  select coalesce(array_agg(position), '{}') into v_fresh from fresh;

  with item as (
    select v_positions[r.n] as position, kirby.lane_at(p_topic, v_positions[r.n], r.k, r.b) as lane, r.*
      from rows from (
             jsonb_to_recordset(p_messages) as (k text, v jsonb, h jsonb, p bigint[], d timestamptz,
                                                x timestamptz, i text, b smallint, r bigint)
           ) with ordinality as r (k, v, h, p, d, x, i, b, r, n)
     where r.i is null or v_positions[r.n] = any (v_fresh)
  ), answered as (
    insert into kirby.result (topic_id, task, lane, position)
    select distinct on (i.r) p_topic.id, i.r, i.lane, i.position from item i where i.r is not null
     order by i.r, i.position desc
        on conflict (topic_id, task) do update set lane = excluded.lane, position = excluded.position
  )
  insert into kirby.message (position, topic_id, lane, key, payload, headers, run_id, parents,
                             deliver_at, expires_at)
  select i.position, p_topic.id, i.lane,
         i.k, coalesce(i.v, 'null'), i.h, p_run_id, i.p, i.d, i.x
    from item i;

  select array_agg(coalesce(o.position, v_positions[m.n]) order by m.n) into v_result
    from jsonb_array_elements(p_messages) with ordinality as m (item, n)
    left join kirby.produced o on o.topic_id = p_topic.id and o.id = m.item ->> 'i';
  return v_result;
end;
$$;
