-- What a version says of when it runs, beside its lines and its zone. Times are in seconds; null: Kirby's own rule.
-- exclude: names of calendars. expects: {topic: seconds in which it must get a message}.
alter table kirby.deployment_version
  add tags          text[]   not null default '{}',
  add exclude       text[]   not null default '{}',
  add catch_up      text     not null default 'last' check (catch_up in ('none', 'last', 'all')),
  add catch_up_most integer  not null default 10 check (catch_up_most between 1 and 1000),
  add jitter        real     not null default 0 check (jitter >= 0),
  add start_by      real     check (start_by > 0),
  add finish_by     real     check (finish_by > 0),
  add heartbeat     real     check (heartbeat > 0),
  add expects       jsonb    not null default '{}',
  add alert_after   smallint not null default 1 check (alert_after between 1 and 1000),
  add recover_after smallint not null default 1 check (recover_after between 1 and 1000),
  add pause_after   smallint check (pause_after between 1 and 1000);

-- One row an instant, whatever names it: the deployment's own schedule (own), the schedules that exceptions put in
-- its place (exceptions), the end of exceptions that asks for a run (returns), a run of another job (after_run).
-- fire_at: at, and the job's share of the jitter; null: at. excluded: the calendar, and the day or window in it.
-- held_by: the exceptions for which it was skipped. again: it was, and is due once more since they have ended.
alter table kirby.tick
  add own        boolean   not null default true,
  add exceptions integer[] not null default '{}',
  add returns    integer[] not null default '{}',
  add after_run  bigint,
  add fire_at    timestamptz,
  add excluded   text,
  add held_by    integer[] not null default '{}',
  add again      boolean   not null default false;
drop index kirby.tick_due;
create index tick_due on kirby.tick (coalesce(fire_at, at)) where status = 'planned';

-- plan_at: when its ticks are planned next ('epoch': anew, since something changed); null: there is nothing to plan.
-- planned_until: up to when its own ticks are rows; what lies between it and now was never planned. follows: the jobs
-- after which it runs (after: JOB).
alter table kirby.deployment
  add plan_at         timestamptz default 'epoch',
  add planned_at      timestamptz,
  add planned_until   timestamptz,
  add planned_version integer,
  add planned_tzdata  text   not null default '',
  add follows         text[] not null default '{}';
create index deployment_plan    on kirby.deployment (plan_at) where plan_at is not null;
create index deployment_follows on kirby.deployment using gin (follows);

alter table kirby.run drop constraint run_cause_check;
alter table kirby.run add constraint run_cause_check
  check (cause in ('schedule', 'daemon', 'manual', 'retry', 'after', 'return'));

-- Days and times at which schedules that name the calendar do not run. No environment: for all.
-- days: ["2026-12-25", "12-25" (every year), …] ; windows: [{"cron": "0 1 * * sun", "minutes": 240}, …].
create table kirby.calendar (
  id             integer     generated always as identity primary key,
  environment_id smallint    references kirby.environment,
  name           text        collate "C" not null check (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  tz             text        not null default '',  -- '': the zone of the schedule that is excluded
  days           jsonb       not null default '[]',
  windows        jsonb       not null default '[]',
  version        integer     not null default 1,
  updated_by     text        not null,
  updated_at     timestamptz not null default clock_timestamp(),
  unique nulls not distinct (environment_id, name)
);

drop function if exists kirby.fire_ticks();  -- it takes a budget
