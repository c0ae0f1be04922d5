-- A text of the same shape: letters become letters, digits digits, all else stays. Of a number the first digit
-- stays 0, or does not become it. Each character is drawn by itself; of a text beyond 1,000 the first ones repeat.
create or replace function kirby.fake_text(p_text text, p_seed bytea, p_number boolean default false)
  returns text
  language plpgsql
  immutable
as $$
declare
  v_found  text    := '';
  v_number boolean := p_number;  -- and its first digit is still to come
  v_stream bytea   := p_seed;
  v_n      integer := 0;
  v_code   integer;
  v_byte   integer;
  v_char   text;
begin
  foreach v_char in array coalesce(string_to_array(left(p_text, 1000), null), '{}') loop
    if v_n = 32 then
      v_stream := sha256(v_stream || p_seed);
      v_n := 0;
    end if;
    v_code := ascii(v_char);
    v_byte := get_byte(v_stream, v_n);
    v_n := v_n + 1;
    if v_code between 97 and 122 then
      v_char := chr(97 + v_byte % 26);
    elsif v_code between 48 and 57 then
      v_char := case when not v_number then v_byte % 10 when v_char = '0' then 0 else 1 + v_byte % 9 end::text;
      v_number := false;
    elsif v_code between 65 and 90 then
      v_char := chr(65 + v_byte % 26);
    elsif v_code > 127 then
      v_char := chr(case when lower(v_char) <> v_char then 65 else 97 end + v_byte % 26);
    end if;
    v_found := v_found || v_char;
  end loop;
  return case when length(p_text) > 1000 then left(repeat(v_found, 1 + length(p_text) / 1000), length(p_text)) else v_found end;
end;
$$;
