-- What at least four fifths of the incidents that one tells of have in common, in words: the error, the reason why they
-- are late, the host (if there are several), the release or its requirements, a topic that they read. Null: nothing.
create or replace function kirby.common_cause(p_id bigint)
  returns text
  language sql
  volatile
as $$
  with told as (
    select i.id, i.kind, i.fingerprint, i.title, i.details, r.id as release_id, r.name as release, r.lock_hash,
           btrim(r.requirements) <> '' as locked, v.needs
      from kirby.incident i
      left join kirby.deployment d on d.id = i.deployment_id
      left join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
      left join kirby.release r on r.id = v.release_id
     where i.told_in = p_id
  ), hosts as (
    select count(distinct s.host) as n from kirby.supervisor s where s.ended_at is null and s.lease_until > kirby.now()
  ), shared as (
    select 1 as rank, min(t.title) as words, count(*) as n from told t where t.kind = 'failing' group by t.fingerprint
     union all
    select 1, t.details ->> 'cause', count(*) from told t where t.kind <> 'failing' group by 2
     union all
    select 2, 'all on host ' || (t.details ->> 'host'), count(*) from told t, hosts h where h.n > 1 group by 2
     union all
    select 3, 'all of release ' || min(t.release), count(*) from told t group by t.release_id having count(t.release_id) > 1
     union all
    select 4, 'all with the same requirements (as ' || min(t.release) || ')', count(*) from told t where t.locked
     group by t.lock_hash
     union all
    select 5, 'all read the topic ' || w.topic, count(*)
      from told t
     cross join lateral jsonb_array_elements_text(
           case jsonb_typeof(t.needs -> 'reads') when 'array' then t.needs -> 'reads' else '[]' end) as w (topic)
     group by w.topic
  )
  select string_agg(s.words, '; ' order by s.rank)
    from (select distinct on (rank) rank, words from shared
           where words is not null and n >= 0.8 * (select count(*) from told)
           order by rank, n desc, words) s
   where s.rank <> 4 or not exists (select from shared o where o.rank = 3 and o.n >= 0.8 * (select count(*) from told));
$$;
