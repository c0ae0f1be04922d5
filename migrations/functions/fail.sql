-- Raise a Kirby error: KB001 invalid, KB002 not found, KB003 denied, KB004 conflict, KB005 fenced,
-- KB006 taken, KB007 wrong isolation, KB008 wrong transition, KB009 wrong schema (kirby/core/errors.py has the classes).
create or replace function kirby.fail(p_code text, p_message text)
  returns void
  language plpgsql
as $$
begin
  raise exception using errcode = p_code, message = p_message;
end;
$$;
