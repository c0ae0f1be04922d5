"""`kirby.progress`: how far a run is, on its row and in the log; it never fails the script."""

import uuid

import psycopg
import pytest
from fix_runs import ENDED, Runs, drive, runs_fixture, supervise_fixture  # noqa: F401

import kirby
from kirby.sdk import progress


@pytest.fixture
def jobs(db):
    """Runs on a connection whose changes are rolled back."""
    return Runs(db)


def running(jobs):
    """A run under way, whose token this connection presents."""
    owner = uuid.uuid4()
    jobs.ask("select kirby.register_supervisor(%s, 'here', 'f', 1, 9)", owner)
    run_id = jobs.trigger(jobs.deploy())
    jobs.ask("select kirby.claim_runs(%s, 9)", owner)
    jobs.ask("select kirby.record_run(%s, 'run_started', '{\"pid\": 1}')", run_id)
    jobs.ask(
        "insert into kirby.token (hash, environment_id, run_id, name)"
        " values (sha256('mine'), 1, %s, 'run') returning hash", run_id,
    )  # fmt: skip
    jobs.ask("select set_config('kirby.token', 'mine', true)")
    return run_id


def report(jobs, done, text=None):
    return jobs.value("select kirby.report_progress(%s, %s)", done, text)


def later(jobs, run_id):
    jobs.ask("update kirby.run set progress_at = progress_at - interval '1 s' where id = %s"
             " returning id", run_id)  # fmt: skip


def test_progress_is_on_the_run_and_in_the_log(jobs):
    run_id = running(jobs)

    assert report(jobs, 0.25, "page 1")
    later(jobs, run_id)
    assert report(jobs, 0.5, "page 2")

    run = jobs.get(run_id)
    assert (run["progress"], run["progress_text"]) == (0.5, "page 2")
    assert jobs.events(run_id)[-2:] == ["run_progress"] * 2
    assert jobs.ask("select * from kirby.verify_runs()") == []


def test_a_wild_loop_does_not_flood_the_log_but_its_end_is_taken(jobs):
    run_id = running(jobs)

    taken = [report(jobs, n / 100) for n in range(100)]

    assert taken.count(True) < 5
    assert report(jobs, 1, "done")
    assert jobs.get(run_id)["progress"] == 1
    assert jobs.events(run_id).count("run_progress") < 7


@pytest.mark.parametrize("done", [-0.1, 1.1, float("nan")])
def test_a_part_that_is_none_is_refused(jobs, done):
    running(jobs)

    with pytest.raises(psycopg.Error) as caught, jobs.conn.transaction():
        report(jobs, done)
    assert caught.value.sqlstate == "KB001"


def test_only_a_run_under_way_has_progress(jobs):
    with pytest.raises(psycopg.Error) as caught, jobs.conn.transaction():
        report(jobs, 0.5)
    assert caught.value.sqlstate == "KB001"

    run_id = running(jobs)
    jobs.ask("select kirby.record_run(%s, 'run_succeeded')", run_id)
    with pytest.raises(psycopg.Error) as caught, jobs.conn.transaction():
        report(jobs, 0.5)
    assert caught.value.sqlstate == "KB003"  # its token was revoked


# In a script


def outcome(runs, supervise, source, **options):
    run_id = runs.start(source, **options)
    drive(supervise(), lambda: runs.get(run_id)["status"] in ENDED)
    return runs.get(run_id)


def told(runs, run_id):
    rows = runs.ask(
        "select data from kirby.job_event where run_id = %s and type = 'run_progress'"
        " order by position", run_id,
    )  # fmt: skip
    return [row["data"] for row in rows]


def test_a_script_tells_its_progress_at_most_once_a_second_and_the_last_one_always(runs, supervise):
    run = outcome(
        runs,
        supervise,
        """
        import kirby, time
        end = time.monotonic() + 2.5
        n = 0
        while time.monotonic() < end:
            n += 1
            kirby.progress(min(n / 100_000, 0.9), f"page {n}")
            time.sleep(0.001)
        kirby.progress(0.95, "nearly done")
        """,
    )

    assert (run["status"], run["progress_text"]) == ("succeeded", "nearly done")
    assert 2 <= len(told(runs, run["id"])) <= 5


def test_what_is_told_once_arrives_though_the_script_goes_on(runs, supervise):
    run_id = runs.start(
        "import kirby, time\nkirby.progress(0.1, 'a')\nkirby.progress(0.2, 'b')\ntime.sleep(60)"
    )
    supervisor = supervise()

    drive(supervisor, lambda: runs.get(run_id)["progress_text"] == "b")

    assert runs.get(run_id)["progress"] == pytest.approx(0.2)
    assert runs.get(run_id)["status"] == "running"


def test_a_script_without_a_database_is_not_failed_by_it(runs, supervise):
    run = outcome(
        runs, supervise,
        """
        import os
        os.environ["KIRBY_DSN"] = "postgresql://127.0.0.1:1/none"
        import kirby
        kirby.progress(0.5)
        """,
    )  # fmt: skip

    assert run["status"] == "succeeded"
    assert run["progress"] is None


def test_outside_of_a_run_it_does_nothing(monkeypatch):
    monkeypatch.delenv("KIRBY_RUN", raising=False)

    kirby.progress(0.5, "page 1")
    kirby.progress(None)

    assert progress._reporter._thread is None


@pytest.mark.parametrize("done", [-1, 2, float("nan")])
def test_a_bad_part_is_the_scripts_mistake_everywhere(done):
    with pytest.raises(kirby.Invalid, match="between 0 and 1"):
        kirby.progress(done)


def test_a_child_by_fork_tells_too(runs, supervise):
    run = outcome(
        runs,
        supervise,
        """
        import kirby, os, sys
        kirby.progress(0.1, "parent")
        pid = os.fork()
        if not pid:
            kirby.progress(1, "child")
            sys.exit(0)
        os.waitpid(pid, 0)
        """,
    )

    assert "child" in [each["text"] for each in told(runs, run["id"])]
