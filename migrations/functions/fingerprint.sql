-- What makes two failures the same: the text without what differs from one to the next (numbers, addresses, ids, times,
-- paths of temporary files).
create or replace function kirby.fingerprint(p_text text)
  returns text
  language sql
  immutable
as $$
  select left(
    regexp_replace(regexp_replace(regexp_replace(regexp_replace(
      p_text,
      '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}', '#', 'g'),
      '/(tmp|var/tmp|dev/shm)/[^\s''",:)]+', '#', 'g'),
      '\m(0[xX])?(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{6,}\M', '#', 'g'),
      '\d+([.:,-]\d+)*', '#', 'g'), 250);
$$;
