-- Forget what was noted as done in a lane whose range is settled. See kirby.close_due.
create or replace function kirby.forget_done(p_subscription_id integer, p_lane smallint)
  returns void
  language sql
  volatile
as $$
  delete from kirby.due
   where subscription_id = p_subscription_id and lane = p_lane and reason = 'done';
$$;
