-- The jobs through which a rewind goes at the first step: its subscriptions, if it is for some only; NULL: any.
create or replace function kirby.rewind_jobs(p_rewind kirby.rewind)
  returns text[]
  language sql
  immutable
as $$
  select case when jsonb_typeof(p_rewind.plan -> 'only') = 'array' then p_rewind.subscriptions end;
$$;
