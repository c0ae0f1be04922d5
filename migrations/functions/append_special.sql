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
  v_ids       text[];
  v_given     bigint;
  v_fresh     bigint;
begin
  if not p_topic.sifted and p_messages @? '$[*] ? (exists (@.d) || exists (@.x))' then
    update kirby.topic set sifted = true where id = p_topic.id and not sifted;
  end if;

  -- One statement for all: the tables are looked up, and the document is read, once.
  with item as materialized (
    select o.*, kirby.lane_at(p_topic, o.position, o.k, o.b) as lane
      from (select nextval('kirby.position') as position, r.*
              from (select * from rows from (
                      jsonb_to_recordset(p_messages) as (k text, v jsonb, h jsonb, p bigint[], d timestamptz,
                                                         x timestamptz, i text, b smallint, r bigint)
                    ) with ordinality as o (k, v, h, p, d, x, i, b, r, n) order by n) r) o
  ), fresh as (
    -- Somebody who publishes the same id at this moment is waited for.
    insert into kirby.produced (topic_id, id, lane, position)
    select p_topic.id, m.i, m.lane, m.position from item m where m.i is not null
     order by m.i, m.n  -- all who publish the same ids take them in the same order
        on conflict do nothing
    returning position
  ), written as (
    select m.* from item m where m.i is null
     union all
    select m.* from item m join fresh f on f.position = m.position
  ), answered as (
    insert into kirby.result (topic_id, task, lane, position)
    select distinct on (w.r) p_topic.id, w.r, w.lane, w.position from written w where w.r is not null
     order by w.r, w.position desc
        on conflict (topic_id, task) do update set lane = excluded.lane, position = excluded.position
  ), appended as (
    insert into kirby.message (position, topic_id, lane, key, payload, headers, run_id, parents,
                               deliver_at, expires_at)
    select w.position, p_topic.id, w.lane, w.k, coalesce(w.v, 'null'), case when w.h ? 'origin' then kirby.checked_origin(w.h, p_topic.environment_id) else w.h end, p_run_id, w.p, w.d, w.x
      from written w
  )
  select array_agg(m.position order by m.n), array_agg(m.i order by m.n), count(m.i), (select count(*) from fresh)
    into v_positions, v_ids, v_given, v_fresh
    from item m;
  if v_fresh = v_given then
    return v_positions;
  end if;

  -- Some were there already, or came before their own transaction: those have the position of the first.
  select array_agg(coalesce(o.position, g.position) order by g.n) into v_positions
    from unnest(v_positions, v_ids) with ordinality as g (position, id, n)
    left join kirby.produced o on o.topic_id = p_topic.id and o.id = g.id;
  return v_positions;
end;
$$;
