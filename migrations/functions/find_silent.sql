-- Open the incident of something that is silent; while it is, it is one episode and is not counted again.
create or replace function kirby.find_silent(
  p_deployment_id integer, p_subject text, p_title text, p_details jsonb, p_run_id bigint
)
  returns void
  language plpgsql
  volatile
as $$
declare
  v_environment_id smallint := (select environment_id from kirby.deployment where id = p_deployment_id);
begin
  if not exists (select from kirby.incident i
                  where i.environment_id = v_environment_id and i.deployment_id = p_deployment_id and i.kind = 'silent'
                    and i.fingerprint = p_subject and i.status = 'open' and not i.flapping) then
    perform kirby.open_incident(v_environment_id, p_deployment_id, 'silent', p_subject, p_title,
              jsonb_build_object('stage', 'silent', 'cause', 'silence of ' || p_subject) || p_details, p_run_id);
  end if;
end;
$$;
