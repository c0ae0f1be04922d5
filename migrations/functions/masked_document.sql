-- What leaves of a message or an entry, {"key", "value", "headers"}, by a mask. With deny, what no rule names is
-- dropped; the key alone is hashed then, since it says what belongs together.
create or replace function kirby.masked_document(p_document jsonb, p_rules jsonb, p_deny boolean, p_salt bytea)
  returns jsonb
  language sql
  immutable
as $$
  select coalesce(kirby.mask_part(p_document, array[p_rules] || case when p_deny then '{"in": {"key": {"rule": "hash"}}}'::jsonb end,
                                  case when p_deny then 'drop' else 'keep' end, p_salt), '{}');
$$;
