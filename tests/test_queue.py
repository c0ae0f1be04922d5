"""Which queued run starts next, as the SQL functions decide: priority, labels, concurrency."""

import threading
import uuid

import psycopg
import pytest
from fix_runs import Runs, runs_fixture  # noqa: F401

LIVE = ("queued", "starting", "running")


@pytest.fixture
def jobs(db):
    """Runs on a connection whose changes are rolled back."""
    return Runs(db)


def supervisor(jobs, labels=(), slots=9):
    found = uuid.uuid4()
    jobs.ask(
        "select kirby.register_supervisor(%s, 'here', %s, 1, %s, '1 minute', %s)",
        found, str(found), slots, list(labels),
    )  # fmt: skip
    return found


def claim(jobs, owner, slots=10):
    return [row["claim_runs"] for row in jobs.ask("select kirby.claim_runs(%s, %s)", owner, slots)]


def record(jobs, run_id, type, data="{}"):
    jobs.ask("select kirby.record_run(%s, %s, %s, 'test')", run_id, type, data)


def status(jobs, run_id):
    return jobs.get(run_id)["status"]


def queued_before(jobs, deployment, interval):
    """A run that has waited for so long already."""
    return jobs.value(
        "select kirby.queue_run(%s, 'manual', 'test', p_delay => -%s::interval)",
        deployment, interval,
    )  # fmt: skip


# Priority


def test_a_higher_priority_goes_first(jobs):
    low, usual, high = (jobs.deploy(priority=priority) for priority in (-5, 0, 5))
    ids = [jobs.trigger(deployment) for deployment in (low, usual, high)]

    assert claim(jobs, supervisor(jobs)) == ids[::-1]


def test_the_lowest_priority_does_not_starve(jobs):
    lowest = queued_before(jobs, jobs.deploy(priority=-100), "201 minutes")
    others = [jobs.trigger(jobs.deploy(priority=100)) for _ in range(3)]

    assert claim(jobs, supervisor(jobs), 2) == [lowest, others[0]]


@pytest.mark.parametrize(("minutes", "first"), [(9, "high"), (11, "low")])
def test_a_minute_of_waiting_is_worth_a_point_of_priority(jobs, minutes, first):
    low = queued_before(jobs, jobs.deploy(priority=0), f"{minutes} minutes")
    high = jobs.trigger(jobs.deploy(priority=10))

    assert claim(jobs, supervisor(jobs), 1) == [low if first == "low" else high]


# Labels


def test_a_run_goes_only_where_all_its_labels_are(jobs):
    anywhere = jobs.trigger(jobs.deploy())
    gpu = jobs.trigger(jobs.deploy(labels=["gpu"]))
    both = jobs.trigger(jobs.deploy(labels=["eu", "gpu"]))

    assert claim(jobs, supervisor(jobs, ["eu"])) == [anywhere]
    assert claim(jobs, supervisor(jobs, ["gpu", "us"])) == [gpu]
    assert claim(jobs, supervisor(jobs, ["gpu", "eu"])) == [both]


def test_what_nobody_may_run_does_not_hold_up_the_rest(jobs):
    nowhere = jobs.deploy(labels=["moon"], priority=100)
    for _ in range(5):
        jobs.trigger(nowhere)
    run_id = jobs.trigger(jobs.deploy())

    assert claim(jobs, supervisor(jobs), 1) == [run_id]


# Concurrency


def under_way(jobs, deployment, owner=None):
    run_id = jobs.trigger(deployment)
    assert claim(jobs, owner or supervisor(jobs)) == [run_id]
    record(jobs, run_id, "run_started")
    return run_id


@pytest.mark.parametrize("policy", ["default", "allow"])
def test_runs_go_on_beside_each_other_if_they_may(jobs, policy):
    deployment = jobs.deploy(concurrency=policy)
    under_way(jobs, deployment)

    second = jobs.trigger(deployment)

    assert claim(jobs, supervisor(jobs)) == [second]


def test_queued_runs_start_one_after_the_other(jobs):
    deployment = jobs.deploy(concurrency="queue")
    owner = supervisor(jobs)
    first, second, third = (jobs.trigger(deployment) for _ in range(3))

    assert claim(jobs, owner) == [first]
    assert claim(jobs, owner) == []
    record(jobs, first, "run_started")
    record(jobs, first, "run_failed")
    assert claim(jobs, supervisor(jobs)) == [second]
    record(jobs, second, "run_failed")
    assert claim(jobs, owner) == [third]


def test_a_serial_run_waits_for_those_of_a_version_that_were_not(jobs):
    deployment = jobs.deploy(name="moving")
    under_way(jobs, deployment)
    jobs.deploy(name="moving", concurrency="queue")
    second = jobs.trigger(deployment)

    assert claim(jobs, supervisor(jobs)) == []
    assert status(jobs, second) == "queued"


@pytest.mark.parametrize("how", ["queued", "under way", "waiting for another attempt"])
def test_a_run_is_skipped_while_one_is_live_and_says_which(jobs, how):
    deployment = jobs.deploy(concurrency="skip", max_attempts=2)
    live = jobs.trigger(deployment) if how == "queued" else under_way(jobs, deployment)
    if how.startswith("waiting"):
        record(jobs, live, "run_failed")
        [live] = [run["id"] for run in jobs.of(deployment) if run["status"] == "queued"]

    skipped = jobs.get(jobs.trigger(deployment))

    assert (skipped["status"], skipped["reason"]) == ("skipped", f"run {live} had not ended")
    assert skipped["ended_at"] is not None
    assert jobs.events(skipped["id"]) == ["run_skipped"]
    assert claim(jobs, supervisor(jobs)) == ([live] if how == "queued" else [])


def test_after_the_end_of_a_run_the_next_is_not_skipped(jobs):
    deployment = jobs.deploy(concurrency="skip")
    record(jobs, under_way(jobs, deployment), "run_succeeded")

    assert status(jobs, jobs.trigger(deployment)) == "queued"


def test_a_run_replaces_those_before_it_and_starts_when_they_are_gone(jobs):
    deployment = jobs.deploy(concurrency="replace", max_attempts=3)
    owner = supervisor(jobs)
    first = under_way(jobs, deployment, owner)
    second = jobs.trigger(deployment)
    third = jobs.trigger(deployment)

    assert status(jobs, second) == "cancelled"
    assert jobs.get(first)["reason"] == "replaced by a newer run"
    assert claim(jobs, owner) == []
    record(jobs, first, "run_cancelled")
    assert claim(jobs, owner) == [third]
    assert len(jobs.of(deployment)) == 3


@pytest.mark.parametrize("policy", ["queue", "skip", "replace"])
def test_another_attempt_is_neither_skipped_nor_does_it_replace(jobs, policy):
    deployment = jobs.deploy(concurrency=policy, max_attempts=2, retry_pause=0)
    run_id = under_way(jobs, deployment)

    record(jobs, run_id, "run_failed")

    [again] = [run for run in jobs.of(deployment) if run["retry_of"] == run_id]
    assert (again["status"], again["serial"]) == ("queued", True)
    assert claim(jobs, supervisor(jobs)) == [again["id"]]


@pytest.mark.parametrize(
    ("policy", "queued"),
    [("default", 0), ("skip", 0), ("allow", 1), ("queue", 1), ("replace", 1)],
)
def test_a_tick_that_comes_early_does_what_its_deployment_says(jobs, policy, queued):
    deployment = jobs.deploy(kind="scheduled", schedules=["* * * * *"], concurrency=policy)
    live = jobs.trigger(deployment)
    jobs.ask(
        "insert into kirby.tick (deployment_id, at, local)"
        " values (%s, kirby.now() - interval '1 second', '') returning at", deployment,
    )  # fmt: skip

    assert jobs.value("select kirby.fire_ticks()") == queued
    [tick] = jobs.ask("select * from kirby.tick where deployment_id = %s", deployment)
    assert tick["status"] == ("queued" if queued else "skipped")
    assert (status(jobs, live) == "cancelled") == (policy == "replace")


def in_threads(dsn, count, work):
    start = threading.Barrier(count)

    def one(number):
        with psycopg.connect(dsn, autocommit=True) as conn:
            start.wait()
            work(Runs(conn), number)

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_supervisors_never_start_two_serial_runs_at_once(runs, dsn):
    deployments = [runs.deploy(concurrency="queue") for _ in range(2)]
    ids = {runs.trigger(deployment) for deployment in deployments for _ in range(20)}
    owners = [supervisor(runs) for _ in range(4)]
    done, overlaps = [], []

    def work(mine, number):
        while len(done) < len(ids):
            for run_id in claim(mine, owners[number]):
                record(mine, run_id, "run_started")
                busy = mine.ask(
                    "select deployment_id from kirby.run where status in ('starting', 'running')"
                    " group by 1 having count(*) > 1"
                )
                overlaps.extend(busy)
                record(mine, run_id, "run_succeeded")
                done.append(run_id)

    in_threads(dsn, 4, work)

    assert sorted(done) == sorted(ids)
    assert overlaps == []


def test_the_database_itself_refuses_a_second_serial_run(jobs):
    deployment = jobs.deploy(concurrency="queue")
    under_way(jobs, deployment)
    second = jobs.trigger(deployment)

    with pytest.raises(psycopg.errors.UniqueViolation), jobs.conn.transaction():
        record(jobs, second, "run_claimed")


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_of_many_that_come_at_once_one_is_left(runs, dsn, policy):
    deployment = runs.deploy(concurrency=policy)

    in_threads(dsn, 6, lambda mine, number: mine.trigger(deployment))

    found = sorted(run["status"] for run in runs.of(deployment))
    assert found == sorted(["queued"] + ["skipped" if policy == "skip" else "cancelled"] * 5)


# What the database enforces


STEPS = {
    "queued": {"starting", "cancelled"},
    "starting": {"running", "failed", "cancelled", "lost"},
    "running": {"succeeded", "failed", "cancelled", "timed_out", "lost"},
}
STATUSES = ("queued", "starting", "running", "succeeded", "failed", "cancelled", "timed_out",
            "lost", "skipped")  # fmt: skip


def test_no_role_takes_a_run_where_it_cannot_go(jobs):
    deployment = jobs.deploy()
    for before in (*STEPS, "succeeded", "skipped"):
        for after in STATUSES:
            if after == before or after in STEPS.get(before, ()):
                continue
            live = before in LIVE
            run_id = jobs.value(
                "insert into kirby.run (deployment_id, environment_id, version, status, cause,"
                " actor, not_before, queued_at, turn, ended_at) values (%s, 1, 1, %s, 'manual',"
                " 'x', now(), now(), now(), %s) returning id",
                deployment, before, None if live else "now",
            )  # fmt: skip
            with pytest.raises(psycopg.Error) as caught, jobs.conn.transaction():
                jobs.conn.execute(
                    "update kirby.run set status = %s, ended_at = %s where id = %s",
                    [after, None if after in LIVE else "now", run_id],
                )
            assert caught.value.sqlstate == "KB008", (before, after)


def test_an_end_without_its_moment_is_refused(jobs):
    run_id = jobs.trigger(jobs.deploy())

    with pytest.raises(psycopg.errors.CheckViolation), jobs.conn.transaction():
        jobs.conn.execute("update kirby.run set status = 'cancelled' where id = %s", [run_id])


def test_the_server_changes_runs_by_the_functions_only(runs, dsn, as_role):
    run_id = runs.trigger(runs.deploy())

    with (
        psycopg.connect(as_role(dsn, "kirby_server")) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("update kirby.run set status = 'cancelled' where id = %s", [run_id])


# Attempts


def test_the_pause_before_another_attempt_is_random_and_grows(jobs):
    pauses = {
        attempt: jobs.value(
            "select max(extract(epoch from kirby.run_pause(10, %s))) from generate_series(1, 400)",
            attempt,
        )
        for attempt in (1, 2, 4, 30)
    }

    assert 8 < pauses[1] <= 10
    assert 16 < pauses[2] <= 20
    assert 64 < pauses[4] <= 80
    assert 2900 < pauses[30] <= 3600
    assert (
        jobs.value("select min(kirby.run_pause(10, 9)) from generate_series(1, 400)").seconds < 30
    )


def test_a_run_that_is_lost_again_and_again_is_given_up(jobs):
    deployment = jobs.deploy()
    owner = supervisor(jobs)
    run_id = jobs.trigger(deployment)
    for _ in range(4):
        assert claim(jobs, owner) == [run_id]
        record(jobs, run_id, "run_lost")
        run_id = jobs.of(deployment)[-1]["id"]

    assert [(run["status"], run["losses"], run["attempt"]) for run in jobs.of(deployment)] == [
        ("lost", losses, 1) for losses in range(4)
    ]


def test_running_out_of_memory_costs_no_attempt(jobs):
    deployment = jobs.deploy(max_attempts=2, retry_pause=0)
    run_id = under_way(jobs, deployment)

    record(jobs, run_id, "run_failed", '{"signal": 9, "out_of_memory": true}')

    again = jobs.of(deployment)[-1]
    assert (again["attempt"], again["losses"], again["retry_of"]) == (1, 1, run_id)
    assert jobs.get(run_id)["out_of_memory"]


@pytest.mark.parametrize(
    ("rerun", "asked", "version"),
    [
        ("original", {}, 1),
        ("current", {}, 3),
        ("current", {"p_current": False}, 1),
        ("original", {"p_current": True}, 3),
        ("original", {"p_version": 2}, 2),
    ],
)
def test_a_run_is_run_again_at_the_version_that_was_asked_for(jobs, rerun, asked, version):
    deployment = jobs.deploy("1", name="moving")
    run_id = under_way(jobs, deployment)
    record(jobs, run_id, "run_succeeded")
    jobs.deploy("2", name="moving")
    jobs.deploy("3", name="moving", rerun=rerun)

    again = jobs.value(
        "select kirby.retry_run(%s, 'me', %s, %s)", run_id, asked.get("p_current"),
        asked.get("p_version"),
    )  # fmt: skip

    assert jobs.get(again)["version"] == version


def test_there_is_no_rerun_at_a_version_that_never_was(jobs):
    run_id = under_way(jobs, jobs.deploy())
    record(jobs, run_id, "run_succeeded")

    with pytest.raises(psycopg.Error, match="no version 7") as caught, jobs.conn.transaction():
        jobs.ask("select kirby.retry_run(%s, 'me', null, 7)", run_id)
    assert caught.value.sqlstate == "KB002"


# All of it is in the log


def test_every_field_can_be_told_from_the_events(jobs):
    deployment = jobs.deploy(concurrency="skip", priority=7, labels=["gpu"], max_attempts=2)
    owner = supervisor(jobs, ["gpu"])
    run_id = jobs.trigger(deployment)
    jobs.trigger(deployment)
    claim(jobs, owner)
    record(jobs, run_id, "run_started", '{"pid": 5}')
    used = '{"peak_memory": 5000000000, "cpu_seconds": 1.234567, "out_of_memory": true}'
    record(jobs, run_id, "run_failed", used)

    assert jobs.ask("select * from kirby.verify_runs()") == []

    run = jobs.get(run_id)
    assert (run["peak_memory"], run["cpu_seconds"]) == (5_000_000_000, 1.234567)
    jobs.ask("update kirby.run set priority = 8 where id = %s returning id", run_id)
    [wrong] = jobs.ask("select * from kirby.verify_runs()")
    assert wrong["key"] == f"run {run_id}"
