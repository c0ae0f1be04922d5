-- Move the subscriptions of a rewind back: lanes as a whole, or keys. The caller has stopped the claims.
create or replace function kirby.move_back(p_rewind kirby.rewind)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_subscription kirby.subscription;
  v_part         kirby.rewind_lane;
begin
  for v_subscription in select * from kirby.rewound(p_rewind.topic_id, p_rewind.subscriptions) loop
    if p_rewind.keys is not null then
      perform kirby.move_keys(p_rewind, v_subscription);
      continue;
    end if;
    for v_part in
      select * from kirby.rewind_parts(v_subscription, p_rewind.after, p_rewind.until) p where p.messages > 0
    loop
      perform kirby.move_lane(p_rewind, v_subscription, v_part);
    end loop;
  end loop;
  perform pg_notify('kirby_topic_' || p_rewind.topic_id, '');
end;
$$;
