-- The topics that have messages in a partition, by skipping through its primary key.
create or replace function kirby.topics_in(p_partition text)
  returns setof integer
  language plpgsql
  stable
as $$
begin
  return query execute format(
    'with recursive t (topic_id) as (
       select min(topic_id) from kirby.%1$I
        union all
       select (select min(m.topic_id) from kirby.%1$I m where m.topic_id > t.topic_id) from t where t.topic_id is not null
     )
     select topic_id from t where topic_id is not null', p_partition);
end;
$$;
