-- Whether a message is delivered to nobody any more: it has expired, or was taken back.
create or replace function kirby.is_gone(p_message kirby.message)
  returns boolean
  language sql
  volatile
as $$
  select coalesce(p_message.expires_at <= kirby.now(), false)
      or exists (select from kirby.retracted r
                  where r.topic_id = p_message.topic_id and r.position = p_message.position);
$$;
