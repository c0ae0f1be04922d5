-- Note for what a rewind waits: of each lane downstream the newest message that has to be settled first. Returns
-- whether it has to wait.
create or replace function kirby.note_waits(
  p_rewind kirby.rewind,
  p_topics integer[],
  p_positions bigint[],
  p_jobs text[]
)
  returns boolean
  language plpgsql
  volatile
as $$
declare
  v_waits record;
begin
  select array_agg(distinct w.words) as words,
         jsonb_agg(jsonb_build_object('s', w.subscription_id, 'l', w.lane, 'p', w.position)) as newest
    into v_waits
    from (select r.*, format('%s of %s up to position %s', s.name, t.name,
                             max(r.position) over (partition by r.subscription_id)) as words
            from kirby.rewind_waits(p_rewind, p_topics, p_positions, p_jobs) r
            join kirby.subscription s on s.id = r.subscription_id
            join kirby.topic t on t.id = s.topic_id) w;
  update kirby.rewind
     set waits = coalesce(v_waits.words, '{}'), waits_for = coalesce(v_waits.newest, '[]')
   where id = p_rewind.id;
  return v_waits.newest is not null;
end;
$$;
