-- Publish in an application's own transaction, on its own connection (the transactional outbox): the
-- messages commit with the application's rows, or vanish with them. What the SDK calls for
-- publish(…, connection=…). The messages are the token's, in the environment that is given; what is NULL
-- is as the connection has it (kirby.token, kirby.environment). Its settings stay as they were.
-- Documents as in append_messages. Returns the positions, in the order given.
--
-- Nobody but PostgreSQL knows when the application commits, so readers are woken by a NOTIFY inside the
-- transaction: one for each topic, however often it is written to. Such commits queue up; after
-- "set kirby.wake = off" there is none, and readers find the messages at their next look.
-- KB001, KB002, KB003.
create or replace function kirby.publish_within(
  p_messages jsonb,
  p_token text default null,
  p_environment text default null,
  out positions bigint[]
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_token       text := coalesce(current_setting('kirby.token', true), '');
  v_environment text := coalesce(current_setting('kirby.environment', true), '');
  v_who         record;
  v_topics      integer[];
begin
  perform set_config('kirby.token', coalesce(p_token, v_token), true),
          set_config('kirby.environment', coalesce(p_environment, v_environment), true);
  select * into v_who from kirby.principal();
  perform set_config('kirby.token', v_token, true),
          set_config('kirby.environment', v_environment, true);

  select a.positions, a.topics into positions, v_topics
    from kirby.append_messages(v_who.environment_id, v_who.run_id, p_messages) a;
  if coalesce(current_setting('kirby.wake', true), '') <> 'off' then
    perform pg_notify('kirby_topic_' || t.id, '') from unnest(v_topics) as t (id);
  end if;
end;
$$;
