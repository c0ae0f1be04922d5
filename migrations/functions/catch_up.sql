-- The ticks that exceptions held become due again, if their return asks for it: the last return_most of each. Returns how many.
create or replace function kirby.catch_up(p_tick kirby.tick)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_count integer;
begin
  update kirby.tick t
     set status = 'planned', reason = null, held_by = '{}', again = true, fire_at = kirby.now()
   where t.deployment_id = p_tick.deployment_id and t.at in (
     select h.at
       from unnest(p_tick.returns) as x (id)
       join kirby.exception_version v on v.exception_id = x.id and v.on_return = 'catch_up'
        and v.version = (select max(l.version) from kirby.exception_version l where l.exception_id = x.id)
      cross join lateral kirby.held_ticks(p_tick, x.id, v.return_most) as h (at));
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;
