"""Planned ticks: always some ahead, never for the past, each fired once."""

import itertools
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fix_runs import Runs, drive, runs_fixture, supervise_fixture  # noqa: F401
from fix_schedules import house_fixture  # noqa: F401

from kirby.server import ticks
from kirby.server.supervisor.leader import Leader


@pytest.fixture
def jobs(db):
    """Runs on a connection whose changes are rolled back."""
    return Runs(db)


@pytest.fixture
def planner():
    return ticks.Planner()


def scheduled(jobs, *schedules, **options):
    return jobs.deploy("pass", kind="scheduled", schedules=schedules, **options)


def planned(jobs, deployment):
    return jobs.ask(
        "select * from kirby.tick where deployment_id = %s and status = 'planned'"
        " and at > kirby.now() order by at", deployment,
    )  # fmt: skip


def at_hours(jobs, deployment):
    return [tick["at"].astimezone(UTC).strftime("%H:%M") for tick in planned(jobs, deployment)]


def now(jobs):
    return jobs.value("select kirby.now()")


def test_a_frequent_schedule_has_twenty_ticks_ahead(jobs, planner):
    deployment = scheduled(jobs, "* * * * *")

    planner.plan(jobs.conn)

    found = [tick["at"] for tick in planned(jobs, deployment)]
    assert len(found) == ticks.MANY
    assert timedelta(0) < found[0] - now(jobs) <= timedelta(minutes=1)
    assert {b - a for a, b in itertools.pairwise(found)} == {timedelta(minutes=1)}


def test_a_rare_schedule_has_the_first_tick_beyond_a_day_ahead(jobs, planner):
    deployment = scheduled(jobs, "0 12 29 2 *")

    planner.plan(jobs.conn)

    [tick] = planned(jobs, deployment)
    assert tick["at"].strftime("%m-%d") == "02-29"


def test_a_daily_schedule_is_planned_beyond_a_day(jobs, planner):
    deployment = scheduled(jobs, "0 12 * * *")

    planner.plan(jobs.conn)

    assert planned(jobs, deployment)[-1]["at"] >= now(jobs) + timedelta(hours=23, minutes=59)


def test_planning_again_changes_nothing(jobs, planner):
    deployment = scheduled(jobs, "* * * * *")
    planner.plan(jobs.conn)
    before = planned(jobs, deployment)

    assert planner.plan(jobs.conn) == 0
    ticks.Planner().plan(jobs.conn)

    assert planned(jobs, deployment)[: len(before)] == before


def test_ticks_are_added_when_few_are_left(house):
    deployment = house.schedule("* * * * *")
    house.set("2026-11-20T12:09")
    house.look()
    assert len(house.ticks(deployment, "planned")) == ticks.FEW + 1

    house.set("2026-11-20T12:11")
    house.look()

    found = [tick["at"] for tick in house.ticks(deployment, "planned")]
    assert len(found) == ticks.MANY - 1
    assert {b - a for a, b in itertools.pairwise(found)} == {timedelta(minutes=1)}


def test_several_cron_lines_are_one_schedule_and_meet_once(jobs, planner):
    deployment = scheduled(jobs, "0 6 * * *", "0 6,18 * * *")

    planner.plan(jobs.conn)

    assert len(set(at_hours(jobs, deployment))) == 2
    assert len(at_hours(jobs, deployment)) == len({t["at"] for t in planned(jobs, deployment)})


def test_a_new_version_replaces_the_ticks_that_are_to_come(jobs, planner):
    deployment = scheduled(jobs, "0 6 * * *", name="report")
    planner.plan(jobs.conn)
    assert set(at_hours(jobs, deployment)) == {"06:00"}

    scheduled(jobs, "0 7 * * *", name="report")
    planner.plan(jobs.conn)

    assert set(at_hours(jobs, deployment)) == {"07:00"}


def test_a_planner_that_knows_nothing_replaces_them_too(jobs, planner):
    deployment = scheduled(jobs, "0 6 * * *", name="report")
    planner.plan(jobs.conn)
    scheduled(jobs, "0 7 * * *", name="report")

    ticks.Planner().plan(jobs.conn)

    assert set(at_hours(jobs, deployment)) == {"07:00"}


def test_what_was_due_is_left_alone_by_a_new_version(jobs, planner):
    deployment = scheduled(jobs, "0 6 * * *", name="report")
    put_tick(jobs, deployment, "1 minute")

    scheduled(jobs, name="report")
    planner.plan(jobs.conn)

    [tick] = jobs.ask("select status from kirby.tick where deployment_id = %s", deployment)
    assert tick["status"] == "planned"


def test_a_deployment_without_a_schedule_has_no_ticks(jobs, planner):
    deployment = scheduled(jobs)

    assert planner.plan(jobs.conn) == 0
    assert planned(jobs, deployment) == []


def test_only_scheduled_jobs_have_ticks(jobs, planner):
    deployment = jobs.deploy("pass", kind="daemon", schedules=["* * * * *"])

    planner.plan(jobs.conn)

    assert planned(jobs, deployment) == []


def test_a_schedule_that_cannot_be_read_does_not_stop_the_others(jobs, planner, caplog):
    broken = scheduled(jobs, "nonsense")
    sound = scheduled(jobs, "* * * * *")

    planner.plan(jobs.conn)
    planner.plan(jobs.conn)

    assert planned(jobs, broken) == []
    assert len(planned(jobs, sound)) == ticks.MANY
    assert caplog.text.count("cannot be planned") == 1


def test_ticks_carry_the_wall_time_of_their_zone_and_what_it_did_to_them(house):
    """Spring in Brussels: 02:30 does not exist on the last Sunday of March."""
    house.set("2026-03-28T12:00")
    deployment = house.schedule("30 2 * * *", tz="Europe/Brussels")

    tick = house.ticks(deployment)[0]

    assert tick["at"].astimezone(UTC) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert tick["local"] == "2026-03-29 03:00:00 CEST"
    assert tick["note"] == "shifted: 02:30 does not exist"


def put_tick(jobs, deployment, ago):
    jobs.ask(
        "insert into kirby.tick (deployment_id, at, local)"
        " values (%s, kirby.now() - %s::interval, 'x') returning at", deployment, ago,
    )  # fmt: skip


def fates(jobs, deployment):
    rows = jobs.ask("select status, reason from kirby.tick where deployment_id = %s"
                    " and at <= kirby.now() order by at", deployment)  # fmt: skip
    return [(row["status"], row["reason"]) for row in rows]


def test_a_due_tick_becomes_a_run_that_knows_its_tick(jobs):
    deployment = scheduled(jobs, "* * * * *")
    put_tick(jobs, deployment, "1 second")

    assert jobs.value("select kirby.fire_ticks()") == 1

    [run] = jobs.of(deployment)
    [tick] = jobs.ask("select * from kirby.tick where deployment_id = %s", deployment)
    assert (run["cause"], run["tick_at"]) == ("schedule", tick["at"])
    assert (tick["status"], tick["run_id"]) == ("queued", run["id"])


def test_after_an_outage_only_the_last_tick_is_run(jobs):
    deployment = scheduled(jobs, "* * * * *")
    for ago in ("3 hours", "2 hours", "1 hour"):
        put_tick(jobs, deployment, ago)

    assert jobs.value("select kirby.fire_ticks()") == 1

    later = ("skipped", "a later tick was due already")
    assert fates(jobs, deployment) == [later, later, ("queued", None)]


def test_a_tick_is_skipped_while_the_run_before_it_goes_on(jobs):
    deployment = scheduled(jobs, "* * * * *")
    jobs.trigger(deployment)
    put_tick(jobs, deployment, "1 second")

    assert jobs.value("select kirby.fire_ticks()") == 0

    assert fates(jobs, deployment) == [("skipped", "the run before it had not ended")]
    [event] = jobs.ask("select * from kirby.job_event where type = 'tick_skipped'"
                       " and deployment_id = %s", deployment)  # fmt: skip
    assert event["data"]["reason"] == "the run before it had not ended"


def test_a_tick_that_is_not_due_waits(jobs, planner):
    deployment = scheduled(jobs, "* * * * *")
    planner.plan(jobs.conn)

    jobs.value("select kirby.fire_ticks()")

    assert jobs.of(deployment) == []


def test_each_tick_is_fired_once_however_many_fire(runs, dsn):
    deployments = [scheduled(runs, "* * * * *") for _ in range(30)]
    for deployment in deployments:
        put_tick(runs, deployment, "1 second")
    start = threading.Barrier(4)
    fired = []

    def fire():
        with psycopg.connect(dsn, autocommit=True) as conn:
            start.wait()
            fired.append(conn.execute("select kirby.fire_ticks()").fetchone()[0])

    threads = [threading.Thread(target=fire) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(fired) == 30
    assert {len(runs.of(deployment)) for deployment in deployments} == {1}


def test_two_leaders_fire_a_tick_once(runs, supervise, tmp_path):
    deployment = scheduled(runs, "* * * * *")
    first = supervise()
    second = supervise(data=tmp_path / "other", host="there")
    put_tick(runs, deployment, "1 second")

    def both():
        first.tick()
        return [run["status"] for run in runs.of(deployment)] == ["succeeded"]

    drive(second, both)

    assert runs.value("select count(*) from kirby.lease where name = 'leader'") == 1
    assert len(planned(runs, deployment)) >= ticks.FEW


def test_the_lease_goes_to_another_when_the_leader_ends(runs, supervise):
    first, second = supervise(), supervise(data=supervise.folder / "other", host="there")
    holder = "select holder from kirby.lease where name = 'leader'"
    drive(first, lambda: runs.ask(holder))

    first.stop()

    drive(second, lambda: [row["holder"] for row in runs.ask(holder)] == [second.id], timeout=5)


def test_a_supervisor_that_the_database_does_not_know_leads_nobody(as_role, dsn):
    leader = Leader(as_role(dsn, "kirby_server"), lambda: None, 15)

    assert not leader.tick()

    leader.stop()


def test_one_of_two_is_the_leader_and_stays_it(runs, dsn, as_role):
    one, two = (runs.value("select gen_random_uuid()") for _ in range(2))
    leaders = [Leader(as_role(dsn, "kirby_server"), lambda owner=owner: owner, 15)
               for owner in (one, two)]  # fmt: skip

    assert [leader.tick() for leader in leaders] == [True, False]
    assert leaders[0].tick()

    for leader in leaders:
        leader.stop()
