-- Of a plan that sets states back: that its figures would not be exact, why, and from where they are (after; NULL: from
-- nowhere, as it was asked for). NULL: they are exact.
create or replace function kirby.exact_note(
  p_topic kirby.topic,
  p_after bigint,
  p_until bigint,
  p_keys text[],
  p_only text[]
)
  returns jsonb
  language plpgsql
  volatile
as $$
declare
  v_point record := kirby.exact_point(p_topic, p_after, p_until, p_keys, p_only);
  v_at    timestamptz;
  v_more  bigint;
  v_made  text := format('%s of both sides', case v_point.versions when 1 then '1 version was made from messages'
                         else format('%s versions were made from messages', v_point.versions) end);
  v_text  text;
  v_lost  record;
begin
  select * into v_lost from kirby.compacted_below(p_topic.id, coalesce(v_point.after, p_after), p_only);
  if found then
    return kirby.lost_note(p_topic, v_lost.name, v_lost.exact_from, v_lost.upto);
  end if;
  if v_point.after = p_after then
    return null;
  end if;
  select count(*), (array_agg(m.recorded_at order by m.position))[1] into v_more, v_at
    from kirby.message m
   where m.topic_id = p_topic.id and m.position > v_point.after and m.position <= p_after
     and (p_keys is null or m.key = any (p_keys));
  v_text := case v_point.why
    when 'keys' then format('not exact for these keys alone: %s, and of other keys; without --keys it may be', v_made)
    when 'until' then format('not exact up to there: %s of the end; leave --until out', v_made)
    when 'retention' then format('not exact from here: %s, and retention has removed what would have to come again', v_made)
    else format('not exact from here: %s; exact from %s (%s), %s earlier; add --exact to start there',
                v_made, v_point.after + 1, to_char(v_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                case v_more when 1 then '1 message' else v_more || ' messages' end) end;
  return jsonb_build_object('versions', v_point.versions, 'after', v_point.after, 'at', v_at, 'messages', v_more,
                            'why', v_point.why, 'text', v_text);
end;
$$;
