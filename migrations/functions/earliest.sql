-- The first position of a topic that retention has not passed, and the moment after which everything that
-- was recorded is there (NULL: nothing was removed): as far back as it can be rewound.
create or replace function kirby.earliest(p_topic_id integer, out "position" bigint, out at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(max(r.gone_to), 0) + 1, max(r.gone_at)
    from kirby.topic_retention r where r.topic_id = p_topic_id;
$$;
