-- KB001 unless a state can keep all versions of so long: from a day to a hundred years. NULL: for ever.
create or replace function kirby.check_keep(p_keep interval)
  returns void
  language plpgsql
  stable
as $$
begin
  if p_keep < interval '1 day' or p_keep > interval '36525 days' then
    perform kirby.fail('KB001', format('all versions are kept for a day at least and a hundred years at most, not for %s', p_keep));
  end if;
end;
$$;
