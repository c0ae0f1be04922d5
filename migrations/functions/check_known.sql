-- KB001 if keys of a state cannot be set back to a position or a moment, since what they were then is not known for certain:
-- compaction removed versions around it. Names the nearest ones that stayed, and the nearest moments that are certain.
create or replace function kirby.check_known(
  p_state_id integer,
  p_position bigint,
  p_when timestamptz,
  p_keys text[],
  p_prefix text
)
  returns void
  language plpgsql
  stable
as $$
declare
  v_name  text := (select s.name from kirby.state s where s.id = p_state_id);
  v_gap   record;
  v_exact text;
begin
  select g.*, count(*) over () as keys into v_gap
    from kirby.gaps_at(p_state_id, p_position, p_when, p_keys, p_prefix) g order by g.key limit 1;
  if not found then
    return;
  end if;
  v_exact := format('%s and %s are exact', kirby.utc(kirby.day_end(v_gap.after_at) - interval '24 hours'),
                    kirby.utc(kirby.day_end(v_gap.after_at)));
  if cardinality(p_keys) = 1 then
    perform kirby.fail('KB001', format(
      'compaction removed what key %s of state %s was then; there are %sversion %s (position %s, %s); %s',
      v_gap.key, v_name,
      case when v_gap.before_version is not null then format('version %s (position %s, %s) and ', v_gap.before_version,
                                                            v_gap.before_position, kirby.utc(v_gap.before_at)) else '' end,
      v_gap.after_version, v_gap.after_position, kirby.utc(v_gap.after_at), v_exact));
  end if;
  perform kirby.fail('KB001', format(
    'compaction removed what %s of state %s was then, as of %s; %s',
    case v_gap.keys when 1 then '1 key' else v_gap.keys || ' keys' end, v_name, v_gap.key, v_exact));
end;
$$;
