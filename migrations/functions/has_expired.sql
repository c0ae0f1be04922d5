-- Whether a message is not to be handed out any more.
create or replace function kirby.has_expired(p_topic_id integer, p_lane smallint, p_position bigint)
  returns boolean
  language sql
  volatile
as $$
  select exists (
    select from kirby.topic t
      join kirby.message m on m.topic_id = t.id and m.lane = p_lane and m.position = p_position
     where t.id = p_topic_id and t.sifted and m.expires_at <= kirby.now());
$$;
