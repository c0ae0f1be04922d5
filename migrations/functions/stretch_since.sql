-- The end of the first stretch beyond p_after that has a message which was recorded at p_when or later; NULL:
-- none up to where messages are counted.
create or replace function kirby.stretch_since(p_after bigint, p_when timestamptz, p_counted bigint)
  returns bigint
  language sql
  stable
as $$
  select i.position from kirby.time_index i
   where i.position > p_after and i.latest >= p_when and i.position - 5000 < p_counted
   order by i.position limit 1;
$$;
