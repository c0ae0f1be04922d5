-- How a topic stands to its policy: its oldest message, by how many seconds that is older than the topic
-- keeps it, and the subscription that keeps it there: one that is not done with it, or with what lay right before.
create or replace function kirby.retention_of(
  p_topic_id integer,
  out keep interval,
  out even_unread boolean,
  out gone_to bigint,
  out gone_at timestamptz,
  out oldest bigint,
  out oldest_at timestamptz,
  out late double precision,
  out blocked_by text,
  out blocked_reason text
)
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan  -- to plan it for all partitions costs more than to run it
as $$
declare
  v_policy kirby.topic_retention;
begin
  select * into v_policy from kirby.topic_retention r where r.topic_id = p_topic_id;
  keep := v_policy.keep;
  even_unread := coalesce(v_policy.even_unread, false);
  gone_to := coalesce(v_policy.gone_to, 0);
  gone_at := v_policy.gone_at;
  select m.position, m.recorded_at into oldest, oldest_at
    from kirby.topic t
   cross join lateral generate_series(0, t.lanes - 1) as l (lane)
   cross join lateral (
         select m.position, m.recorded_at from kirby.message m
          where m.topic_id = t.id and m.lane = l.lane and m.position > gone_to
          order by m.position limit 1) m
   where t.id = p_topic_id
   order by m.position limit 1;
  late := coalesce(greatest(extract(epoch from kirby.now() - oldest_at - keep), 0), 0);

  if late > 0 and not even_unread then
    select s.name, u.reason into blocked_by, blocked_reason
      from kirby.unread(p_topic_id) u join kirby.subscription s on s.id = u.subscription_id
     where u.position <= oldest
     order by u.position, s.name limit 1;
  end if;
end;
$$;
