-- What retention has to do now, in this order: drop a partition (of which everything is expired), or delete
-- from a topic up to a position, or from a log. Called by the leader every minute; changes nothing.
--
-- A partition that holds both expired messages and others is left alone while it will expire as a whole soon:
-- within a tenth of the topic's policy, or an hour. A partition is dropped only if its topics have nothing before
-- it, so that what is left of a topic never has a hole.
create or replace function kirby.plan_retention()
  returns table (log text, partition text, topic_id integer, upto bigint)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_horizon bigint := kirby.horizon_of_all();
  v_expired jsonb;   -- topic: up to where its messages may go
  v_behind  integer[] := '{}';
  v_part    record;
  v_topics  integer[];
  v_topic   record;
  v_log     text;
begin
  select coalesce(jsonb_object_agg(e.topic_id, e.upto), '{}') into v_expired
    from (select r.topic_id, kirby.expired_to(r.topic_id) as upto
            from kirby.topic_retention r where r.keep is not null) e
   where e.upto > 0;

  for v_part in
    select p.* from kirby.partitions('message') p
     where p.first <= (select max(e.value::bigint) from jsonb_each_text(v_expired) e)
     order by p.first
  loop
    v_topics := array(select kirby.topics_in(v_part.name));
    if v_part.last <= v_horizon and not v_topics && v_behind and not exists (
      select from unnest(v_topics) t (id)
       where coalesce((v_expired ->> t.id::text)::bigint, 0) < v_part.last
         and kirby.has_between(t.id, greatest((v_expired ->> t.id::text)::bigint, v_part.first - 1), v_part.last)
    ) then
      log := 'message'; partition := v_part.name; topic_id := null; upto := null;
      return next;
      continue;
    end if;

    for v_topic in
      select t.id, least(coalesce((v_expired ->> t.id::text)::bigint, 0), v_part.last) as upto, r.keep
        from unnest(v_topics) t (id) left join kirby.topic_retention r on r.topic_id = t.id
       order by t.id
    loop
      v_behind := v_behind || v_topic.id;
      if v_topic.upto >= v_part.first and kirby.has_between(v_topic.id, v_part.first - 1, v_topic.upto)
         and not kirby.expires_soon(v_part.first, v_part.last, v_topics, v_topic.keep) then
        log := 'message'; partition := v_part.name; topic_id := v_topic.id; upto := v_topic.upto;
        return next;
      end if;
    end loop;
  end loop;

  topic_id := null; upto := null;
  for v_log in select l.log from kirby.log_retention l where l.keep is not null order by l.log loop
    for v_part in
      select p.* from kirby.partitions(v_log) p
       where p.last < (select min(c.position) from kirby.pace c)
       order by p.first
    loop
      exit when kirby.expired_rows(v_log, v_part.name) is null;
      log := v_log; partition := v_part.name;
      return next;
    end loop;
    log := v_log; partition := null;
    return next;
  end loop;
end;
$$;
