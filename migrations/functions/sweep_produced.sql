-- Forget the producer ids of messages that retention removed, once they are seven days old; returns how many.
-- There is no index for it: each call looks at the next p_blocks blocks of the table and remembers where it was, so
-- it costs the same however many ids there are, and the hot path nothing.
create or replace function kirby.sweep_produced(p_blocks integer default 2000)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_from    bigint;
  v_blocks  bigint := pg_relation_size('kirby.produced') / current_setting('block_size')::bigint;
  v_counted bigint := kirby.counted_to(null);
  v_before  bigint;  -- what lies before it is seven days old
  v_rows    integer;
begin
  v_before := coalesce(kirby.stretch_since(-1, kirby.now() - interval '7 days', v_counted) - 4999, v_counted);
  insert into kirby.sweep (name) values ('produced') on conflict do nothing;
  select s.block into v_from from kirby.sweep s where s.name = 'produced' for update;
  delete from kirby.produced p
   using kirby.topic_retention r
   where p.ctid >= format('(%s,0)', v_from)::tid and p.ctid < format('(%s,0)', v_from + p_blocks)::tid
     and r.topic_id = p.topic_id and p.position <= r.gone_to and p.position < v_before;
  get diagnostics v_rows = row_count;
  update kirby.sweep s set block = case when v_from + p_blocks >= v_blocks then 0 else v_from + p_blocks end
   where s.name = 'produced';
  return v_rows;
end;
$$;
