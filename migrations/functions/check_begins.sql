-- KB001 if it is not known for certain what handlers found in a state that began at a position: compaction removed
-- versions behind it.
create or replace function kirby.check_begins(p_state_id integer, p_position bigint)
  returns void
  language plpgsql
  stable
as $$
declare
  v_lost record;
begin
  select s.name, c.exact_from into v_lost
    from kirby.compaction c join kirby.state s on s.id = c.state_id
   where c.state_id = p_state_id and c.exact_from > p_position;
  if found then
    perform kirby.fail('KB001', format(
      'state %s was compacted: what it was is known from position %s on, and the slice begins at %s; begin later, or leave that state out',
      v_lost.name, v_lost.exact_from, p_position + 1));
  end if;
end;
$$;
