-- The partitions of a log with the positions they hold, lowest first; the default one has none, and is last.
create or replace function kirby.partitions(p_log text)
  returns table (name text, id oid, first bigint, last bigint)
  language sql
  stable
as $$
  select p.name, p.id, p.bounds[1]::bigint, p.bounds[2]::bigint - 1
    from (select c.relname::text as name, c.oid as id,
                 regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(\d+)''\) TO \(''(\d+)''\)') as bounds
            from pg_inherits i
            join pg_class c on c.oid = i.inhrelid
           where i.inhparent = ('kirby.' || p_log)::regclass) p
   order by p.bounds[1]::bigint;
$$;
