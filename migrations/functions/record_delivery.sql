-- Record what became of a notice at its channel, in the transaction that settles it; the last 200 of a channel are kept.
-- A channel that failed three times in a row, or that a notice was given up at, is an incident, told through the other
-- channels; the next delivery resolves it. A test that fails is between the channel and whoever tests it.
-- p_outcome: delivered, failed (it is tried again) or parked. A channel that is gone: nothing happens.
create or replace function kirby.record_delivery(
  p_channel_id integer,
  p_position bigint,
  p_incident_id bigint,
  p_event text,
  p_attempt integer,
  p_outcome text,
  p_answer text,
  p_seconds double precision
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := kirby.now();
  v_channel kirby.channel;
begin
  update kirby.channel c
     set failures      = case when p_outcome = 'delivered' then 0 when p_event = 'test' then failures else failures + 1 end,
         failing_since = case when p_outcome = 'delivered' then null
                              when p_event = 'test' then failing_since else coalesce(failing_since, v_now) end,
         delivered_at  = case when p_outcome = 'delivered' then v_now else delivered_at end
   where c.id = p_channel_id
  returning * into v_channel;
  if not found then
    return;
  end if;
  insert into kirby.delivery (channel_id, position, incident_id, event, attempt, outcome, answer, seconds, at)
  values (p_channel_id, p_position, p_incident_id, p_event, p_attempt, p_outcome, p_answer, p_seconds, v_now);
  delete from kirby.delivery d
   where d.channel_id = p_channel_id
     and d.id <= (select o.id from kirby.delivery o where o.channel_id = p_channel_id
                   order by o.id desc offset 200 limit 1);

  if p_outcome = 'delivered' then
    perform kirby.mend_channel(v_channel, 'kirby', 'a notice was delivered');
  elsif p_event <> 'test' and (p_outcome = 'parked' or v_channel.failures >= 3) then
    perform kirby.break_channel(v_channel, p_answer);
  end if;
end;
$$;
