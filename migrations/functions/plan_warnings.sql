-- Of a plan: what somebody should know before it begins.
create or replace function kirby.plan_warnings(p_topic kirby.topic, p_readers jsonb, p_down jsonb, p_note jsonb, p_states boolean)
  returns jsonb
  language sql
  volatile
as $$
  select coalesce(jsonb_agg(w.text order by w.number), '[]')
    from (select 1 as number, format(
                   'state %s will count these messages twice: it is not set back first (--states does it)',
                   s.name) as text
            from jsonb_to_recordset(p_down -> 'states') as s (name text)
           where not p_states
           union all
          select 2, format('%s of these keys of state %s from elsewhere%s: undone with them',
                           case s.others when 1 then 'there is one version' else format('there are %s versions', s.others) end, s.name,
                           case when s.other_jobs <> '{}' then ' (' || array_to_string(s.other_jobs, ', ') || ')' else '' end)
            from jsonb_to_recordset(p_down -> 'states') as s (name text, others bigint, other_jobs text[])
           where p_states and s.others > 0
           union all
          select 3, p_note ->> 'text'
           where p_note is not null
           union all
          select 4, format('subscription %s is paused: its messages come again when it is resumed', r.name)
            from jsonb_to_recordset(p_readers) as r (name text, paused boolean)
           where r.paused
           union all
          select 5, format('of what is made downstream %s has parked %s: that is not waited for', s.name, count(*))
            from jsonb_to_recordset(p_down -> 'topics') as d (name text)
            join kirby.topic t on t.environment_id = p_topic.environment_id and t.name = d.name
            join kirby.subscription s on s.topic_id = t.id
            join kirby.due o on o.subscription_id = s.id and o.parked_at is not null
           where p_states
           group by s.id, s.name) w;
$$;
