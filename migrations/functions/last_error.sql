-- What a run said last of what went wrong: the last exception among the last lines on standard error, else the last of
-- these lines; empty if there is none.
create or replace function kirby.last_error(p_run_id bigint)
  returns text
  language sql
  stable
as $$
  select coalesce((
    select left(l.text, 300)
      from (select e.position, e.text from kirby.log_line e
             where e.run_id = p_run_id and e.stream = 'stderr' and e.text ~ '\S'
             order by e.position desc limit 30) l
     order by l.text ~ '^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Fault|Warning|Timeout|Refused)\y' desc,
              l.position desc
     limit 1), '');
$$;
