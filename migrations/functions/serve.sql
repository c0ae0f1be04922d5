-- Say how a subscription is going to be served: what becomes of replays (process, ignore, divert or dry_run), and
-- what the code says of itself (kirby.declare). KB001, KB002, KB003.
create or replace function kirby.serve(p_subscription_id integer, p_on_replay text, p_declaration jsonb)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_on_replay is null or p_on_replay not in ('process', 'ignore', 'divert', 'dry_run') then
    perform kirby.fail('KB001', format('%L is not what can become of a replay: process, ignore, divert or dry_run', p_on_replay));
  end if;
  perform kirby.declare(p_subscription_id, p_declaration);  -- whose it is, is seen to there
  update kirby.subscription s set on_replay = p_on_replay
   where s.id = p_subscription_id and s.on_replay <> p_on_replay;
end;
$$;
