-- A value of the same type and shape, the same for the same value and salt: numbers keep their digits' number
-- and their sign, times are times, UUIDs are UUIDs, other texts keep letters, digits and signs where they are.
create or replace function kirby.fake(p_value jsonb, p_salt bytea)
  returns jsonb
  language plpgsql
  immutable
as $$
declare
  v_text text  := p_value #>> '{}';
  v_seed bytea := kirby.hash_of(v_text, p_salt);
  v_date text[];
begin
  case jsonb_typeof(p_value)
  when 'boolean' then
    return to_jsonb(get_byte(v_seed, 0) % 2 = 0);
  when 'number' then
    return to_jsonb(kirby.fake_text(v_text, v_seed, true)::numeric);
  when 'string' then
    if v_text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      return to_jsonb(substr(encode(v_seed, 'hex'), 1, 32)::uuid::text);
    end if;
    v_date := regexp_match(v_text, '^\d{4}-\d\d-\d\d(?:([T ])\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?)?$');
    if v_date is null then
      return to_jsonb(kirby.fake_text(v_text, v_seed));
    end if;
    return to_jsonb(
      to_char(make_date(1950 + get_byte(v_seed, 0) % 80, 1 + get_byte(v_seed, 1) % 12, 1 + get_byte(v_seed, 2) % 28), 'YYYY-MM-DD')
      || coalesce(v_date[1] || to_char(get_byte(v_seed, 3) % 24, 'FM00') || ':' || to_char(get_byte(v_seed, 4) % 60, 'FM00'), '')
      || coalesce(left(v_date[2], 1) || to_char(get_byte(v_seed, 5) % 60, 'FM00'), '')
      || coalesce(kirby.fake_text(v_date[3], v_seed), '') || coalesce(v_date[4], ''));
  else
    return p_value;
  end case;
end;
$$;
