-- Publish messages and change states in one transaction; what the SDK calls outside a handler.
-- The quiet way: the caller notifies kirby_topic_<id> of the returned topics after its commit.
-- Documents as in append_messages and append_mutations. KB001, KB003, KB004.
create or replace function kirby.write(
  p_messages jsonb default '{}',
  p_mutations jsonb default '{}',
  out positions bigint[],
  out topics integer[]
)
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_who record;
  v_new record;
begin
  v_who := kirby.principal();
  v_new := kirby.append_messages(v_who.environment_id, v_who.run_id, p_messages);
  positions := v_new.positions;
  topics := v_new.topics;
  if p_mutations <> '{}' then
    topics := topics || kirby.append_mutations(v_who.environment_id, v_who.run_id, p_mutations);
  end if;
end;
$$;
