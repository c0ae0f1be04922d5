-- Note what the code of a job says of itself when it starts to serve a subscription: {"job", "release", "to"
-- (names of topics), "states" (names of states), "on_replay", "doc"}. The flow graph shows it beside what was
-- seen, the catalogue shows its words. Said again: only the time changes, once a minute.
-- KB001: not such a document. KB002, KB003.
create or replace function kirby.declare(p_subscription_id integer, p_document jsonb)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_own     record;
  v_job     text;
  v_release text := left(p_document ->> 'release', 200);
begin
  if jsonb_typeof(p_document) is distinct from 'object' or length(p_document::text) > 65536 then
    perform kirby.fail('KB001', 'a declaration is a JSON object of at most 64 kB');
  end if;
  v_own := kirby.own_subscription(p_subscription_id);
  v_job := left(coalesce(p_document ->> 'job', (v_own.subscription).name), 200);

  insert into kirby.declaration as d (environment_id, subscription_id, job, release, document)
  values (v_own.environment_id, p_subscription_id, v_job, v_release, p_document)
      on conflict (subscription_id, job, release) do update
     set document = excluded.document, at = excluded.at
   where d.document <> excluded.document or d.at < excluded.at - interval '1 minute';
end;
$$;
