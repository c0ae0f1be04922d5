-- Append messages of a transaction to the topics of an environment; used by every way to publish.
-- p_messages: {"<topic>": [{"v": payload, "k": key, "h": headers, "p": [parent positions]}, …], …}; or,
-- for messages with more to them (kirby.append_special), {"<topic>": {"m": [{…}, …]}, …}. A topic of
-- which not all lanes are alike takes that way too.
-- Returns the positions, per topic in the order given, and the topics' ids, for the notification. KB003: a message
-- that was exported from here and comes back (kirby.checked_origin).
create or replace function kirby.append_messages(
  p_environment_id smallint,
  p_run_id bigint,
  p_messages jsonb,
  out positions bigint[],
  out topics integer[]
)
  language plpgsql
  volatile
as $$
declare
  v_name     text;
  v_messages jsonb;
  v_id       integer;
  v_topic    kirby.topic;
  v_new      bigint[];
begin
  positions := '{}';
  topics := '{}';
  for v_name, v_messages in select t.key, t.value from jsonb_each(p_messages) t loop
    v_id := kirby.topic_id(p_environment_id, v_name);
    perform kirby.announce(v_id);
    select * into v_topic from kirby.topic where id = v_id;  -- after the announcement: kirby.change_lanes

    if jsonb_typeof(v_messages) = 'object' then
      v_new := kirby.append_special(v_topic, p_run_id, v_messages -> 'm');
    elsif v_topic.bands > 1 or v_topic.lanes_from > 0 then
      v_new := kirby.append_special(v_topic, p_run_id, v_messages);
    elsif jsonb_array_length(v_messages) = 1 then  -- the same as below, in a tenth less time
      insert into kirby.message (position, topic_id, lane, key, payload, headers, run_id, parents)
      select n.position, v_topic.id, kirby.lane(n.k, n.position, v_topic.lanes),
             n.k, coalesce(n.v, 'null'), case when n.h ? 'origin' then kirby.checked_origin(n.h, p_environment_id) else n.h end, p_run_id, n.p
        from (select nextval('kirby.position') as position, m.*
                from jsonb_to_recordset(v_messages) as m (k text, v jsonb, h jsonb, p bigint[])) n
      returning array[position] into v_new;
    else
      with numbered as (
        select nextval('kirby.position') as position, m.k, m.v, m.h, m.p
          from (select * from rows from (
                  jsonb_to_recordset(v_messages) as (k text, v jsonb, h jsonb, p bigint[])
                ) with ordinality as r (k, v, h, p, n) order by n) m
      ), inserted as (
        insert into kirby.message (position, topic_id, lane, key, payload, headers, run_id, parents)
        select n.position, v_topic.id, kirby.lane(n.k, n.position, v_topic.lanes),
               n.k, coalesce(n.v, 'null'), case when n.h ? 'origin' then kirby.checked_origin(n.h, p_environment_id) else n.h end, p_run_id, n.p
          from numbered n
        returning position
      )
      select array_agg(i.position order by i.position) into v_new from inserted i;
    end if;

    positions := positions || v_new;
    topics := topics || v_topic.id;
  end loop;
end;
$$;
