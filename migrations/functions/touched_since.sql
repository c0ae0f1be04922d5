-- What hangs together with a rewind of keys since it set states back, if it is aborted: the keys of states (states,
-- state_keys) that were set back or changed since from messages of its keys; the keys of all messages that changed those
-- since (keys; alone: messages without one), and so on until nothing is added; and what is on its way from all of these
-- messages (topics, positions, jobs).
create or replace function kirby.touched_since(
  p_rewind kirby.rewind,
  out states integer[],
  out state_keys text[],
  out keys text[],
  out alone bigint[],
  out topics integer[],
  out positions bigint[],
  out jobs text[]
)
  language plpgsql
  volatile
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_rewind kirby.rewind := p_rewind;
  v_made   record;
  v_since  record;
  v_more   text[];
begin
  loop
    v_made := kirby.rewind_lists(v_rewind, true);
    select array_agg(k.state_id), array_agg(k.key) into states, state_keys
      from (select s.state_id, s.key from kirby.rewind_state s where s.rewind_id = p_rewind.id
             union
            select m.state_id, m.key collate "C"
              from unnest(v_made.states, v_made.keys, v_made.versions) as m (state_id, key, position)
             where m.position > p_rewind.position) k;
    select array_agg(m.position) as versions, array_agg(to_jsonb(m.parents)) as parents,
           array_agg(coalesce(m.headers #>> '{via,-1,0}', kirby.job_of(m.run_id))) as jobs
      into v_since
      from unnest(states, state_keys) as k (state_id, key)
      join kirby.state_mutation m on m.state_id = k.state_id and m.key = k.key and m.position > p_rewind.position
     where not coalesce(m.headers, '{}') ? 'restored';
    select array_agg(distinct r.key) filter (where not r.key = any (v_rewind.keys)),
           array_agg(distinct r.position) filter (where r.key is null)
      into v_more, alone
      from kirby.roots_in(p_rewind.topic_id, kirby.rewind_jobs(p_rewind), v_since.versions, v_since.parents,
                          v_since.jobs) r;
    exit when v_more is null;
    v_rewind.keys := v_rewind.keys || v_more;
  end loop;
  keys := v_rewind.keys;
  topics := v_made.topics;
  positions := v_made.positions;
  jobs := v_made.jobs;
end;
$$;
