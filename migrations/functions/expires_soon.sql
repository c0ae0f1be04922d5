-- Whether a partition of messages of these topics, p_first to p_last, will be expired as a whole so soon that
-- it is not worth while to delete what is expired of it now: see kirby.plan_retention. One that should have
-- gone by now, and has not (somebody has not read it), is not waited for.
create or replace function kirby.expires_soon(
  p_first bigint,
  p_last bigint,
  p_topics integer[],
  p_keep interval
)
  returns boolean
  language sql
  volatile
as $$
  select coalesce(abs(extract(epoch from closed.at + longest.keep - kirby.now()))
                  <= greatest(3600, extract(epoch from p_keep) / 10), false)
    from (select case when bool_and(r.keep is not null) then max(r.keep) end as keep
            from unnest(p_topics) t (id) left join kirby.topic_retention r on r.topic_id = t.id) longest,
         (select case when p_last <= kirby.counted_to(null) then
                   (select max(i.latest) from kirby.time_index i
                     where i.position >= p_first and i.position <= p_last)
                 end as at) closed;
$$;
