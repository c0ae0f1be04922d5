-- The key of an effect of one message: made of the environment (and when that was made: another installation has
-- other keys), the subscription, the topic, the position, and the name and number of the effect in the handler.
create or replace function kirby.effect_key(
  p_name text,
  p_subscription_id integer,
  p_position bigint,
  p_number integer
)
  returns text
  language sql
  stable
as $$
  select encode(sha256(convert_to(
           jsonb_build_array(e.name, extract(epoch from e.created_at), t.name, s.name, p_position, p_name, p_number)::text,
           'UTF8')), 'hex')
    from kirby.subscription s
    join kirby.topic t on t.id = s.topic_id
    join kirby.environment e on e.id = t.environment_id
   where s.id = p_subscription_id;
$$;
