-- Let a lane go on where it was before it was moved back, if nothing of the part that comes again is left to be
-- handed out. The caller has locked the cursor; returns it as it is then.
create or replace function kirby.leave_part(p_cursor kirby.cursor, p_topic_id integer)
  returns kirby.cursor
  language plpgsql
  volatile
as $$
declare
  v_part   kirby.rewind_lane;
  v_cursor kirby.cursor := p_cursor;
begin
  select * into v_part from kirby.rewind_lane l
   where l.subscription_id = p_cursor.subscription_id and l.lane = p_cursor.lane and l.rewind_id = p_cursor.rewind_id;
  if exists (
    select from kirby.message m
     where m.topic_id = p_topic_id and m.lane = p_cursor.lane
       and m.position > p_cursor.position and m.position <= v_part.until
  ) then
    return v_cursor;
  end if;
  update kirby.cursor
     set rewind_id = null, position = greatest(position, v_part.upto),
         delivered = case when position < v_part.upto then v_part.delivered else delivered end
   where subscription_id = p_cursor.subscription_id and lane = p_cursor.lane and position = p_cursor.position
  returning * into v_cursor;
  return v_cursor;
end;
$$;
