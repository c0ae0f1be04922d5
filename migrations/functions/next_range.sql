-- The next messages of a lane, at most p_limit, and at most 4 MB as they are stored, but for the first
-- one: where they begin and end, and how many. Large ones are weighed without being read.
create or replace function kirby.next_range(
  p_topic_id integer,
  p_lane smallint,
  p_after bigint,
  p_horizon bigint,
  p_limit integer,
  out first bigint,
  out last bigint,
  out messages bigint
)
  language plpgsql
  volatile
as $$
declare
  v_most  constant bigint := 4194304;
  v_bytes bigint;
begin
  select min(m.position), max(m.position), count(*), sum(pg_column_size(m.payload))
    into first, last, messages, v_bytes
    from (select r.position, r.payload from kirby.message r
           where r.topic_id = p_topic_id and r.lane = p_lane
             and r.position > p_after and r.position <= p_horizon
           order by r.position limit p_limit) m;
  if v_bytes > v_most then
    select max(m.position), count(*) into last, messages
      from (select r.position, row_number() over w as number,
                   sum(pg_column_size(r.payload)) over w as bytes
              from kirby.message r
             where r.topic_id = p_topic_id and r.lane = p_lane
               and r.position > p_after and r.position <= last
            window w as (order by r.position)) m
     where m.number = 1 or m.bytes <= v_most;
  end if;
end;
$$;
