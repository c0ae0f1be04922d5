-- Say what a topic, a state or a job of an environment is, and who answers for it (NULL: as it was); audited.
-- KB001: no such kind, or too long. KB002: there is nothing of that name.
create or replace function kirby.describe(
  p_environment_id smallint,
  p_kind text,
  p_name text,
  p_description text,
  p_owner text,
  p_actor text,
  p_reason text default null
)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old   kirby.description;
  v_new   kirby.description;
  v_place text := (select e.name from kirby.environment e where e.id = p_environment_id);
begin
  if p_kind is null or p_kind not in ('topic', 'state', 'job') then
    perform kirby.fail('KB001', format('%L cannot be described: a topic, a state or a job', p_kind));
  elsif length(p_description) > 10000 or length(p_owner) > 200 then
    perform kirby.fail('KB001', 'a description has at most 10,000 characters, an owner 200');
  elsif not (case p_kind
        when 'topic' then exists (select from kirby.topic t where t.environment_id = p_environment_id and t.name = p_name)
        when 'state' then exists (select from kirby.state s where s.environment_id = p_environment_id and s.name = p_name)
        else exists (select from kirby.deployment d join kirby.job j on j.id = d.job_id
                      where d.environment_id = p_environment_id and j.name = p_name)
          or exists (select from kirby.declaration d where d.environment_id = p_environment_id and d.job = p_name)
          or exists (select from kirby.flow f where f.environment_id = p_environment_id and f.job = p_name)
        end) then
    perform kirby.fail('KB002', format('there is no %s %s in %s', p_kind, p_name, v_place));
  end if;

  select * into v_old from kirby.description d
   where d.environment_id = p_environment_id and d.kind = p_kind and d.name = p_name for update;
  insert into kirby.description as d (environment_id, kind, name, description, owner, updated_by)
  values (p_environment_id, p_kind, p_name, coalesce(p_description, ''), coalesce(p_owner, ''), p_actor)
      on conflict (environment_id, kind, name) do update
     set description = coalesce(p_description, d.description), owner = coalesce(p_owner, d.owner),
         updated_by = p_actor, updated_at = clock_timestamp()
  returning * into v_new;
  perform kirby.audit(
    p_actor, 'described', format('%s/%s/%s', p_kind, v_place, p_name),
    jsonb_build_object('description', v_old.description, 'owner', v_old.owner),
    jsonb_build_object('description', v_new.description, 'owner', v_new.owner), p_reason);
end;
$$;
