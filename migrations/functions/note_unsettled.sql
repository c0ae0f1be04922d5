-- Note what the subscriptions of a rewind of keys have never settled, of any key, just before it moves them: if it is
-- aborted, what of it was settled since is delivered again (kirby.take_keys_back).
create or replace function kirby.note_unsettled(p_rewind kirby.rewind)
  returns void
  language sql
  volatile
as $$
  insert into kirby.rewind_unsettled (rewind_id, subscription_id, position)
  select p_rewind.id, s.id, u.position
    from kirby.rewound(p_rewind.topic_id, p_rewind.subscriptions) s
    join kirby.cursor c on c.subscription_id = s.id
   cross join lateral (select kirby.undone_in(s, c.lane, 0, c.position) as position) u
   where p_rewind.keys is not null
      on conflict do nothing;
$$;
