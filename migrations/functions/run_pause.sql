-- How long to wait before attempt p_attempt + 1 of a run: a random part (full jitter) of p_pause seconds, twice, four
-- times … as long, at most an hour (or p_pause, if that is longer).
create or replace function kirby.run_pause(p_pause real, p_attempt integer)
  returns interval
  language sql
  volatile
as $$
  select make_interval(secs => random() * least(greatest(3600, p_pause), p_pause * 2 ^ least(greatest(p_attempt, 1) - 1, 20)));
$$;
