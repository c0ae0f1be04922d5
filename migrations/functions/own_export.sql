-- An export that is under way, for whoever began it. KB002: there is none of that number. KB003: it is another's.
-- KB004: it has ended, or the masks of what it exports have changed since: what may leave is not what it says.
create or replace function kirby.own_export(p_export bigint, p_actor text)
  returns kirby.export
  language plpgsql
  stable
as $$
declare
  v_who    record;
  v_export kirby.export;
  v_other  text;
begin
  v_who := kirby.exporter(p_actor);
  select * into v_export from kirby.export x where x.id = p_export and x.environment_id = v_who.environment_id;
  if not found then
    perform kirby.fail('KB002', format('there is no export %s in %s', p_export, v_who.environment));
  elsif v_export.actor <> v_who.actor then
    perform kirby.fail('KB003', format('export %s was begun by %s', p_export, v_export.actor));
  elsif v_export.ended_at is not null then
    perform kirby.fail('KB004', format('export %s has ended: begin a new one', p_export));
  end if;

  select p.name into v_other
    from (select t.name, t.plan, (select to_jsonb(m) from kirby.mask m join kirby.topic o on o.id = m.topic_id
                                   where o.environment_id = v_who.environment_id and o.name = t.name) as mask
            from jsonb_each(v_export.plan -> 'topics') as t (name, plan)
           union all
          select t.name, t.plan, (select to_jsonb(m) from kirby.mask m join kirby.state o on o.id = m.state_id
                                   where o.environment_id = v_who.environment_id and o.name = t.name)
            from jsonb_each(v_export.plan -> 'states') as t (name, plan)) p
   where p.plan -> 'masks' <> coalesce(p.mask -> 'rules', '{}')
      or p.plan -> 'deny' <> coalesce(p.mask -> 'deny', 'false')
   limit 1;
  if v_other is not null then
    perform kirby.fail('KB004', format('the masks of %s have changed since export %s began: begin a new one', v_other, p_export));
  end if;
  return v_export;
end;
$$;
