-- How long to wait before try p_try + 1: 1 s, 2 s, 4 s … at most a minute, and no jitter below half.
create or replace function kirby.backoff(p_try integer)
  returns interval
  language sql
  volatile
as $$
  select make_interval(secs => least(60, 2 ^ least(greatest(p_try, 1) - 1, 6)) * (0.5 + random() / 2));
$$;
