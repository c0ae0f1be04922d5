-- KB001 if retention removed messages of a topic above a position. p_moment: what was asked for.
create or replace function kirby.check_earliest(p_topic_id integer, p_after bigint, p_moment timestamptz default null)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_first record := kirby.earliest(p_topic_id);
  v_name  text;
begin
  if p_after >= v_first.position - 1 and (p_moment > v_first.at) is distinct from false then
    return;
  end if;
  select name into v_name from kirby.topic where id = p_topic_id;
  perform kirby.fail('KB001', format(
    'retention has removed older messages of topic %s: the earliest that it can be rewound to is position %s, or a moment after %s',
    v_name, v_first.position, coalesce(to_char(v_first.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'its beginning')));
end;
$$;
