-- A span of time in words, in two units at the most: 45 s, 12 min, 3 h 20 min, 2 d.
create or replace function kirby.span(p_span interval)
  returns text
  language sql
  immutable
as $$
  select case
           when s.n < 60 then s.n || ' s'
           when s.n < 3600 then s.n / 60 || ' min'
           when s.n < 86400 then s.n / 3600 || ' h' || coalesce(' ' || nullif(s.n % 3600 / 60, 0) || ' min', '')
           else s.n / 86400 || ' d' || coalesce(' ' || nullif(s.n % 86400 / 3600, 0) || ' h', '')
         end
    from (select greatest(0, floor(extract(epoch from p_span)))::bigint as n) s;
$$;
