-- From where a rewind that sets states back gives exact figures: the nearest "after" at or before p_after. What is undone
-- is whole versions, from the first one of each key that was made from a message that comes again; all messages that
-- they were made of have to come again. So where one lies before the point, the point goes back to it, until none does.
--
-- after = p_after: it is exact from there. versions: how many were made from messages that do not come again, as it was
-- asked for. after is NULL if there is no such point, and why says what stands against it: "keys" (made from messages of
-- other keys too), "until" (from messages after the end too), "retention" (it has removed what would have to come again).
create or replace function kirby.exact_point(
  p_topic kirby.topic,
  p_after bigint,
  p_until bigint,
  p_keys text[],
  p_jobs text[],
  out after bigint,
  out versions bigint,
  out why text
)
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
  set work_mem = '256MB'
  set jit = off
as $$
declare
  v_first bigint := (kirby.earliest(p_topic.id)).position;
  v_upto  bigint := coalesce(p_until, 9223372036854775807);
  v_made  record;
  v_undone record;
  v_seen  bigint[] := '{}';
  v_states integer[] := '{}';
  v_keys  text[] := '{}';
  v_positions bigint[] := '{}';
  v_roots record;
begin
  after := p_after;
  loop
    select array_agg(d.place_id) as states, array_agg(d.key) as keys, array_agg(d.position) as positions into v_made
      from kirby.descendants(p_topic.environment_id, p_topic.id, after, v_upto, p_keys, p_jobs) d
     where d.kind = 'mutation';
    v_states := v_states || v_made.states;
    v_keys := v_keys || v_made.keys;
    v_positions := v_positions || v_made.positions;
    select array_agg(s.position) as versions, array_agg(to_jsonb(s.parents)) as parents, array_agg(s.job) as jobs
      into v_undone
      from kirby.standing_since(v_states, v_keys, v_positions) s
     where not exists (select from unnest(v_seen) as n (position) where n.position = s.position);
    v_seen := v_seen || v_undone.versions;

    select min(r.position) filter (where r.position <= exact_point.after) as low,
           bool_or(not r.key = any (p_keys)) as keys,
           bool_or(r.position > p_until) as beyond,
           count(distinct r.version) filter (
             where r.position <= p_after or r.position > p_until or not r.key = any (p_keys)) as versions
      into v_roots
      from (select o.version, o.position, case when p_keys is not null then coalesce(o.key, '') end as key
              from kirby.roots_in(p_topic.id, p_jobs, v_undone.versions, v_undone.parents, v_undone.jobs) o) r;
    versions := coalesce(versions, v_roots.versions);
    v_upto := after;
    why := case when v_roots.keys then 'keys' when v_roots.beyond then 'until'
                when v_roots.low < v_first then 'retention' end;
    exit when why is not null or v_roots.low is null;
    after := v_roots.low - 1;
  end loop;
  if why is not null then
    after := null;
  end if;
end;
$$;
