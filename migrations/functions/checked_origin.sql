-- The headers of a message that came from an export, unless it comes back to where it, or what it was made
-- of, was exported: KB003. Called for messages that have a header "origin" alone.
create or replace function kirby.checked_origin(p_headers jsonb, p_environment_id smallint)
  returns jsonb
  language plpgsql
  stable
as $$
declare
  v_installation uuid;
  v_environment  text;
begin
  select i.id, e.name into v_installation, v_environment
    from kirby.installation i join kirby.environment e on e.id = p_environment_id;
  if jsonb_path_exists(p_headers, '$.origin.** ? (@.installation == $i && @.environment == $e)',
                       jsonb_build_object('i', v_installation, 'e', v_environment), true) then
    perform kirby.fail('KB003', format('a message that was exported from %s of this installation does not come back to it (position %s there)',
                                       v_environment, p_headers #>> '{origin,position}'));
  end if;
  return p_headers;
end;
$$;
