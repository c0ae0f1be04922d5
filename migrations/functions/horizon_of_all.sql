-- The position up to which every topic may be read: kirby.horizon for all of them. KB007.
create or replace function kirby.horizon_of_all()
  returns bigint
  language plpgsql
  volatile
as $$
declare
  v_high bigint;
  v_low  bigint;
begin
  perform kirby.check_isolation();
  select last_value into v_high from kirby.position;
  select min(a.low) into v_low from kirby.announced(v_high) a;
  return least(v_high, v_low);
end;
$$;
