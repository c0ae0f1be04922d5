-- The headers of messages that a rewind delivers again: each one says so, but for those that had never been
-- settled, which come for the first time.
create or replace function kirby.replay_headers(p_claim kirby.claim, p_positions bigint[], p_headers json)
  returns json
  language sql
  volatile
as $$
  select json_agg(case when f.position is not null then h.header::jsonb
                       else coalesce(nullif(h.header::jsonb, 'null'), '{}')
                            || jsonb_build_object('replay', p_claim.rewind_id) end
                  order by p.number)
    from unnest(p_positions) with ordinality as p (position, number)
    left join json_array_elements(p_headers) with ordinality as h (header, number) on h.number = p.number
    left join kirby.rewind_fresh f on p_claim.kind = 'range' and f.subscription_id = p_claim.subscription_id
                                  and f.position = p.position;
$$;
