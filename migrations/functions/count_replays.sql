-- Book what was handed out of a rewind on its rate.
create or replace function kirby.count_replays(p_rewind_id bigint, p_messages bigint)
  returns void
  language sql
  volatile
as $$
  update kirby.rewind
     set rate_at = greatest(rate_at, kirby.now()) + make_interval(secs => p_messages / rate)
   where id = p_rewind_id and rate is not null;
$$;
