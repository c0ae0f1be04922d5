-- Whether a queued run may start now on that supervisor. A serial one only while no other of its deployment is
-- under way; a daemon's replica only where there is a place for it (kirby.has_place). Both are decided by one
-- supervisor at a time, under a lock on the deployment that is held until the claim commits; who does not get
-- it asks again later.
create or replace function kirby.may_start(p_run kirby.run, p_supervisor kirby.supervisor)
  returns boolean
  language plpgsql
  volatile
as $$
begin
  if not p_run.serial and p_run.replica is null then
    return true;
  end if;
  perform from kirby.deployment where id = p_run.deployment_id for no key update skip locked;
  if not found then
    return false;
  elsif p_run.replica is not null then
    return kirby.has_place(p_run, p_supervisor);
  end if;
  return not exists (select from kirby.run r
                      where r.deployment_id = p_run.deployment_id and r.status in ('starting', 'running')
                        and r.shadow_id is null);
end;
$$;
