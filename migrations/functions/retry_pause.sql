-- How long a message waits after its p_attempt-th failure: a random part (full jitter) of 1, 2, 4 … s, at
-- most ten minutes. AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
create or replace function kirby.retry_pause(p_attempt integer)
  returns interval
  language sql
  volatile
as $$
  select make_interval(secs => random() * least(600, 2 ^ least(greatest(p_attempt, 1) - 1, 10)));
$$;
