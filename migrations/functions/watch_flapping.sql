-- What flapped is over when it has been well for an hour.
create or replace function kirby.watch_flapping()
  returns void
  language plpgsql
  volatile
as $$
declare
  v_id bigint;
begin
  for v_id in
    select i.id from kirby.incident i
      left join kirby.streak s on s.deployment_id = i.deployment_id
     where i.flapping and i.status = 'open' and i.updated_at <= kirby.now() - interval '1 hour'
       and (i.kind <> 'failing' or coalesce(s.failures, 0) = 0)
     order by i.id
  loop
    perform kirby.resolve_incident(v_id, 'kirby', 'it has been well for an hour');
  end loop;
end;
$$;
