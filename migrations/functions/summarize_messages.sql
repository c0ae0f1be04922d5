-- Let the BRIN indexes of the newest messages, and mutations of states, know the blocks that came since the last
-- time: what is not known to them is read whole by whoever asks (kirby.count_messages and kirby.keep_states every
-- second). Returns how many ranges of blocks.
-- 55P03: a vacuum is at work there, which does the same.
create or replace function kirby.summarize_messages()
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '50ms'
as $$
begin
  return (
    select coalesce(sum(brin_summarize_new_values(x.indexrelid)), 0)
      from (select * from kirby.partitions('message') union all select * from kirby.partitions('state_mutation')) p
      join pg_index x on x.indrelid = p.id
      join pg_class c on c.oid = x.indexrelid
      join pg_am a on a.oid = c.relam and a.amname = 'brin'
     where p.last >= (select least(d.position, s.position) from kirby.counted d, kirby.mutations_counted s)
       and p.first <= (select s.last_value from kirby.position s));
end;
$$;
