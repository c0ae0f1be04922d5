-- How many replays of a rewind may be handed out now, at most p_limit: none while it is prepared, paused or aborted;
-- no more than its rate lets out (GCRA, as in kirby.allowance).
create or replace function kirby.replay_room(p_rewind_id bigint, p_limit integer)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_rewind kirby.rewind;
begin
  select * into v_rewind from kirby.rewind w where w.id = p_rewind_id;
  if v_rewind.status in ('preparing', 'paused', 'aborting') then
    return 0;
  elsif v_rewind.rate is null then
    return p_limit;
  end if;
  select * into v_rewind from kirby.rewind w where w.id = p_rewind_id for no key update;
  return greatest(0, least(
    p_limit,
    floor(1e-6 + greatest(1, v_rewind.rate / 4)
          + v_rewind.rate * least(0, extract(epoch from kirby.now() - v_rewind.rate_at)::float8))::integer));
end;
$$;
