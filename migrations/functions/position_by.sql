-- A position above which every mutation of a state was recorded after a moment; the highest there is if none is known.
-- It is close: at most some two thousand mutations of the state lie between it and the last one recorded by then.
create or replace function kirby.position_by(p_state_id integer, p_when timestamptz)
  returns bigint
  language sql
  stable
as $$
  select coalesce((select m.position from kirby.moment m
                    where m.state_id = p_state_id and m.at > p_when
                    order by m.at, m.position limit 1), 9223372036854775807);
$$;
