-- What stands for a text in an export: the same for the same text and salt, and nothing can be told from it
-- without the salt. Nested, so that nothing can be appended to what is hashed.
create or replace function kirby.hash_of(p_text text, p_salt bytea)
  returns bytea
  language sql
  immutable
as $$
  select sha256(p_salt || sha256(p_salt || convert_to(p_text, 'UTF8')));
$$;
