-- A claimed range as one row: its messages as arrays of the same length, payloads as one JSON
-- document. In the order of positions; those that are delivered by themselves are not in a range.
create or replace function kirby.batch_of(
  p_claim kirby.claim,
  p_topic_id integer,
  out claim_id bigint,
  out fence bigint,
  out attempt smallint,
  out positions bigint[],
  out keys text[],
  out payloads json,
  out headers json,
  out recorded_at timestamptz[],
  out run_ids bigint[],
  out parents json
)
  language plpgsql
  volatile
as $$
begin
  claim_id := p_claim.id;
  fence := p_claim.fence;
  attempt := p_claim.attempt;
  select array_agg(m.position order by m.position),
         array_agg(m.key order by m.position),
         json_agg(m.payload order by m.position),
         case when count(m.headers) > 0 then json_agg(m.headers order by m.position) end,
         array_agg(m.recorded_at order by m.position),
         array_agg(m.run_id order by m.position),
         case when count(m.parents) > 0 then json_agg(m.parents order by m.position) end
    into positions, keys, payloads, headers, recorded_at, run_ids, parents
    from kirby.message m
   where m.topic_id = p_topic_id
     and m.lane = p_claim.lane
     and m.position between p_claim.first and p_claim.upto
     and (p_claim.kind = 'due' or not exists (
           select from kirby.due d
            where d.subscription_id = p_claim.subscription_id and d.position = m.position));
end;
$$;
