-- The runs [first, -last] in an array of parents, each as "first-last"; none: an empty array.
create or replace function kirby.run_names(p_parents bigint[])
  returns text[]
  language sql
  immutable
  parallel safe
as $$
  select array(select p_parents[i] || p_parents[i + 1]::text
                 from generate_subscripts(p_parents, 1) as i
                where p_parents[i + 1] < 0 and 0 > any (p_parents));
$$;
