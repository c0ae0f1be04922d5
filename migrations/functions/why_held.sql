-- What an exception does to a tick, in words; times in the zone of the schedule.
create or replace function kirby.why_held(
  p_effect text, p_id integer, p_until timestamptz, p_reason text, p_schedules text[], p_most integer, p_per real, p_tz text
)
  returns text
  language sql
  stable
as $$
  select format('%s until %s by exception %s: %s',
    case p_effect
      when 'pause' then 'paused'
      when 'manual' then 'only by hand'
      when 'skip' then format('the next %s ticks are skipped', p_most)
      when 'schedule' then format('runs at %s instead', array_to_string(p_schedules, ', '))
      else format('at most %s in %s s', p_most, p_per)
    end,
    regexp_replace(kirby.wall(p_until, p_tz), ':\d\d ', ' '), p_id, p_reason);
$$;
