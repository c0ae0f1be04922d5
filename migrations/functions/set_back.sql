-- Give keys of a state these values again (NULL: none), each as a new version; returns how many it changed. Keys
-- that have them already stay as they are. p_versions: the versions that the values are of (0: none); they are
-- told in headers.restored, beside what p_headers has there.
create or replace function kirby.set_back(
  p_state_id integer,
  p_keys text[],
  p_values jsonb[],
  p_versions bigint[],
  p_run_id bigint,
  p_headers jsonb
)
  returns integer
  language plpgsql
  volatile
as $$
declare
  v_changed text[];
  v_topic   integer;
begin
  perform kirby.announce_states();
  perform from kirby.state_entry e
    where e.state_id = p_state_id and e.key = any (p_keys)
    order by e.key
    for no key update;

  with restored as (
    insert into kirby.state_mutation (position, state_id, key, version, op, value, run_id, headers)
    select nextval('kirby.position'), p_state_id, t.key, e.version + 1,
           case when t.value is null then 'delete' else 'set' end, t.value, p_run_id,
           coalesce(p_headers, '{}') || jsonb_build_object('restored',
             coalesce(p_headers -> 'restored', '{}') || jsonb_build_object('version', t.version))
      from unnest(p_keys, p_values, p_versions) as t (key, value, version)
      join kirby.state_entry e on e.state_id = p_state_id and e.key = t.key
     where case e.op when 'set' then e.value end is distinct from t.value
     order by t.key collate "C"
    returning key
  )
  select array_agg(r.key) into v_changed from restored r;

  if v_changed is not null and (select s.followed from kirby.state s where s.id = p_state_id) then
    v_topic := kirby.follow_changes(p_state_id, p_run_id, v_changed);
    if v_topic is not null then
      perform pg_notify('kirby_topic_' || v_topic, '');
    end if;
  end if;
  return coalesce(cardinality(v_changed), 0);
end;
$$;
