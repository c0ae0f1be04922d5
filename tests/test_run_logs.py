"""What runs print, on its way to the log: in time, in order, once, whatever it is."""

import re
import time
from pathlib import Path

import fix_postgres
import psycopg
from fix_output import Hundred, ended
from fix_runs import Runs, drive, runs_fixture, supervise_fixture  # noqa: F401

from kirby.server.supervisor.redaction import HIDDEN


def test_a_line_is_in_the_log_while_the_run_goes_on(runs, supervise):
    run_id = runs.start("import time\nprint('first')\ntime.sleep(60)")
    supervisor = supervise()
    drive(supervisor, lambda: runs.get(run_id)["status"] == "running")

    drive(supervisor, lambda: runs.texts(run_id) == ["first"], timeout=1)

    assert runs.get(run_id)["status"] == "running"


def test_lines_are_in_the_log_within_200_milliseconds(runs, supervise):
    run_id = runs.start(
        "import time\nfor _ in range(20):\n    print(time.time())\n    time.sleep(0.03)"
    )
    late = []
    seen = set()

    def watch():
        for text in runs.texts(run_id):
            if text not in seen:
                seen.add(text)
                late.append(time.time() - float(text))
        return len(seen) == 20

    supervisor = supervise()
    drive(supervisor, watch)

    assert sorted(late)[10] < 0.2


def test_the_lines_of_each_stream_are_in_order_and_have_their_level(runs, supervise):
    run_id = runs.start(
        """
        import sys
        for n in range(500):
            print("out", n)
            print("WARNING", n, file=sys.stderr)
        raise ValueError("the end")
        """
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.texts(run_id, "stdout") == [f"out {n}" for n in range(500)]
    errors = runs.lines(run_id, "stderr")
    assert [line["text"] for line in errors][:500] == [f"WARNING {n}" for n in range(500)]
    assert {line["level"] for line in errors[:500]} == {"warning"}
    assert errors[500]["text"] == "Traceback (most recent call last):"
    assert errors[-1]["text"] == "ValueError: the end"
    assert {line["level"] for line in errors[500:]} == {"error"}


def test_lines_have_the_time_of_the_database(runs, supervise):
    run_id = runs.start("print('now')")

    drive(supervise(), ended(runs, run_id))

    run = runs.get(run_id)
    [line] = runs.lines(run_id)
    assert run["queued_at"] < line["at"] < run["ended_at"]


def test_the_last_line_is_in_the_log_before_the_end_is(runs, supervise):
    run_id = runs.start("for n in range(20_000): print(n)")
    supervisor = supervise()

    drive(supervisor, ended(runs, run_id))

    assert runs.value(
        "select max(l.position) < max(e.position) from kirby.log_line l, kirby.job_event e"
        " where l.run_id = %s and e.run_id = %s", run_id, run_id,
    )  # fmt: skip
    assert runs.texts(run_id)[-1] == "19999"


def test_rubbish_is_logged_as_well_as_can_be(runs, supervise):
    run_id = runs.start(
        r"""
        import os
        os.write(1, bytes(range(256)) * 4 + b"\n")
        os.write(2, b"\x00\xed\xa0\x80 \\u0000 \xf0\x9f\x98\x80 \xe2\x80\xa8 half \xf0\x9f")
        """
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded"
    assert len(runs.lines(run_id, "stdout")) == 5
    [text] = runs.texts(run_id, "stderr")
    assert text == "\u2400\ufffd\ufffd\ufffd \\u0000 \U0001f600 \u2028 half \ufffd"


def test_a_line_of_a_megabyte_is_logged_in_pieces(runs, supervise):
    run_id = runs.start("print('x' * 1_000_000)")

    drive(supervise(), ended(runs, run_id))

    assert "".join(runs.texts(run_id)) == "x" * 1_000_000


def test_twenty_megabytes_are_all_in_the_log(runs, supervise):
    total = 200_000
    run_id = runs.start(f"for n in range({total}): print(f'{{n:099}}')")

    drive(supervise(), ended(runs, run_id), timeout=60)

    assert runs.get(run_id)["status"] == "succeeded"
    assert runs.lines(run_id, "kirby") == []
    assert runs.texts(run_id) == [f"{n:099}" for n in range(total)]


def test_a_hundred_megabytes_are_all_in_the_log_and_the_script_never_waits(runs, supervise):
    before = peak_memory()
    hundred = Hundred(runs, supervise.folder)

    supervisor = supervise()

    drive(supervisor, hundred.has_ended, timeout=120)

    hundred.check()
    assert peak_memory() - before < 150_000_000
    assert list(supervise.folder.glob("data/spill/*/*")) == []
    supervisor.stop()
    assert list(supervise.folder.glob("data/spill/*")) == []


def logged(runs, run_id):
    """How many lines the log stands for: those that are there, and those said to be dropped."""
    dropped = [int(re.match(r"(\d+) lines? dropped", t)[1]) for t in runs.texts(run_id, "kirby")]
    return len(runs.lines(run_id, "stdout")) + sum(dropped)


def peak_memory():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def test_a_run_is_not_held_up_by_a_log_that_cannot_be_written(runs, supervise, dsn):
    run_id = runs.start(
        "for n in range(300_000): print(n)\nopen(__import__('os').environ['DONE'], 'w')",
        variables={"DONE": str(supervise.folder / "done")},
    )
    supervisor = supervise()

    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table kirby.log_line in access exclusive mode")
        drive(supervisor, (supervise.folder / "done").exists)
    drive(supervisor, ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded"
    assert runs.texts(run_id) == [str(n) for n in range(300_000)]


def test_beyond_the_bound_the_log_says_how_many_lines_were_dropped(runs, supervise, dsn):
    supervisor = supervise(spill=20_000_000)
    hundred = Hundred(runs, supervise.folder)

    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table kirby.log_line in access exclusive mode")
        drive(supervisor, hundred.has_written, timeout=60)
    drive(supervisor, hundred.has_ended)

    assert runs.get(hundred.id)["status"] == "succeeded"
    assert logged(runs, hundred.id) == 1_000_000
    assert 0 < len(runs.lines(hundred.id, "stdout")) < 500_000
    assert runs.lines(hundred.id, "kirby")[0]["level"] == "warning"


def test_a_quiet_run_does_not_wait_for_a_noisy_one(runs, supervise):
    """While a hundred megabytes of another one are on their way."""
    hundred = Hundred(runs, supervise.folder)
    supervisor = supervise()
    drive(supervisor, hundred.has_written, timeout=60)
    quiet = runs.start("import time\nprint(time.time())\ntime.sleep(0.2)")

    drive(supervisor, lambda: runs.texts(quiet), timeout=30)
    late = time.time() - float(runs.texts(quiet)[0])

    assert hundred.lines() < 1_000_000
    assert late < 2


def test_listeners_are_told_of_new_lines_and_of_changes(runs, supervise, dsn):
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("listen kirby_log")
        listener.execute("listen kirby_job")
        run_id = runs.start("print('hello')")

        drive(supervise(), ended(runs, run_id))
        heard = {(n.channel, n.payload) for n in listener.notifies(timeout=0.5)}

    assert heard == {("kirby_log", str(run_id)), ("kirby_job", str(run_id))}


def test_a_log_that_cannot_be_written_does_not_keep_the_lease_from_being_renewed(
    runs, supervise, dsn
):
    run_id = runs.start("import time\nwhile True:\n    print('x')\n    time.sleep(0.01)")
    supervisor = supervise(lease=0.3)
    drive(supervisor, lambda: runs.lines(run_id))
    lease = "select lease_until from kirby.supervisor"

    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table kirby.log_line in access exclusive mode")
        before = runs.value(lease)
        drive(supervisor, lambda: (runs.value(lease) - before).total_seconds() > 1, timeout=5)

    assert runs.get(run_id)["status"] == "running"


def test_a_supervisor_that_stops_ships_what_runs_that_ended_left_on_disk(
    runs, supervise, dsn, monkeypatch
):
    """Longer than it would wait for lines that stand still: or a run that succeeded ran again."""
    monkeypatch.setattr("kirby.server.supervisor.SHIP", 0.5)
    hundred = Hundred(runs, supervise.folder)
    supervisor = supervise()
    drive(supervisor, hundred.has_written, timeout=60)
    drive(supervisor, lambda: supervisor._runs[hundred.id].end)

    supervisor.stop()

    hundred.check()


def test_the_password_of_the_database_is_no_more_shown_than_the_token(runs, supervise):
    run_id = runs.start(
        """
        import os
        print(os.environ["KIRBY_DSN"])
        print(os.environ["KIRBY_TOKEN"])
        """
    )

    drive(supervise(), ended(runs, run_id))

    dsn, token = runs.texts(run_id)
    assert fix_postgres.ROLE_PASSWORD not in dsn
    assert HIDDEN in dsn
    assert token == HIDDEN
