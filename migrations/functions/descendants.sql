-- Everything derived from the messages of a topic above p_after, up to p_until (of these keys): messages and
-- mutations of its environment, each once, at its least depth, with the job that wrote it. place_id is the id of
-- a topic or of a state, as kind (message, mutation) says. p_jobs: the first step only through these jobs
-- (names of subscriptions: the newest hop of via, else the job of the run). See kirby.derived.
create or replace function kirby.descendants(
  p_environment_id smallint,
  p_topic_id integer,
  p_after bigint,
  p_until bigint,
  p_keys text[] default null,
  p_jobs text[] default null,
  p_most_depth integer default 16
)
  returns table (kind text, place_id integer, "position" bigint, key text, depth integer, job text)
  language sql
  stable
as $$
  select d.kind, d.place_id, d.position, d.key, d.depth, d.job
    from kirby.derived(
           p_environment_id,
           array(select m.position from kirby.message m
                  where m.topic_id = p_topic_id and m.position > p_after and m.position <= p_until
                    and (p_keys is null or m.key = any (p_keys))),
           p_jobs, p_most_depth, p_topic_id) d;
$$;
