"""What runs print, on its way to the log: in time, in order, once, whatever it is."""

import os
import re
import shutil
import signal
import tempfile
import time
import uuid
from pathlib import Path

import fix_postgres
import psycopg
import pytest
from fix_runs import ENDED, Runs, drive, runs_fixture, supervise_fixture  # noqa: F401

from kirby.core.errors import Unavailable
from kirby.server import schema
from kirby.server.postgres import Postgres
from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.lines import Lines
from kirby.server.supervisor.shipper import REFUSED, Clock, Shipper


def ended(runs, run_id):
    return lambda: runs.get(run_id)["status"] in ENDED


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


# A script that writes a hundred megabytes as fast as it can: lines that say their number. It keeps
# how long its slowest write took, and all of them.
HUNDRED = """
import os, time
slowest, began = 0.0, time.monotonic()
for first in range(0, 1_000_000, 1000):
    view = memoryview(b"".join(b"%099d\\n" % n for n in range(first, first + 1000)))
    at = time.monotonic()
    while view:
        view = view[os.write(1, view):]
    slowest = max(slowest, time.monotonic() - at)
with open(os.environ["DONE"] + ".new", "w") as file:
    print(slowest, time.monotonic() - began, file=file)
os.rename(os.environ["DONE"] + ".new", os.environ["DONE"])
"""


class Hundred:
    """A run of that script."""

    def __init__(self, runs, folder):
        self.runs, self.path = runs, folder / "done"
        self.id = runs.start(HUNDRED, variables={"DONE": str(self.path)})

    def has_written(self):
        return self.path.exists()

    def lines(self):
        return self.runs.value("select count(*) from kirby.log_line where run_id = %s", self.id)

    def check(self):
        """All of it is in the log, in order, once, and the script never waited for long."""
        assert self.runs.get(self.id)["status"] == "succeeded"
        assert self.runs.texts(self.id, "kirby") == []
        [found] = self.runs.ask(
            "select count(*) as lines, count(distinct text) as different,"
            " min(text::numeric) as first, max(text::numeric) as last,"
            " bool_and(text::numeric > before or before is null) as in_order"
            " from (select text, lag(text::numeric) over (order by position) as before"
            "         from kirby.log_line where run_id = %s) l",
            self.id,
        )
        assert list(found.values()) == [1_000_000, 1_000_000, 0, 999_999, True]
        slowest, total = map(float, self.path.read_text().split())
        assert slowest < 1.0
        assert total < 30.0


def test_a_hundred_megabytes_are_all_in_the_log_and_the_script_never_waits(runs, supervise):
    before = peak_memory()
    hundred = Hundred(runs, supervise.folder)

    drive(supervise(), ended(runs, hundred.id), timeout=120)

    hundred.check()
    assert peak_memory() - before < 150_000_000
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
    supervisor = supervise(spill=10_000_000)
    hundred = Hundred(runs, supervise.folder)

    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table kirby.log_line in access exclusive mode")
        drive(supervisor, hundred.has_written, timeout=60)
    drive(supervisor, ended(runs, hundred.id))

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


# When the database fails


@pytest.fixture
def shipper(runs, dsn, as_role):
    """Makes a shipper for a run, not started: the test ticks it."""
    made = []

    def make():
        run_id = runs.trigger(runs.deploy())
        owner = uuid.uuid4()
        runs.ask("select kirby.register_supervisor(%s, 'here', 'folder', 1, 9)", owner)
        backlog = Backlog(owner)
        server = as_role(dsn, "kirby_server")
        ends, fenced = [], []
        shipper = Shipper(server, backlog, Clock(), ends.append, fenced.append)
        shipper.ends, shipper.fenced = ends, fenced
        made.append(shipper)
        return run_id, owner, backlog, shipper

    yield make
    for shipper in made:
        shipper._link.drop()


def lines_of(run_id, *texts):
    return [Lines(run_id, "stdout", "info", text.encode(), time.time()) for text in texts]


def test_a_line_that_the_database_refuses_costs_no_other_line(runs, shipper):
    run_id, _, backlog, shipper = shipper()
    texts = [str(n) for n in range(100)]
    texts[37] = "a\0b"

    backlog.put(lines_of(run_id, *texts))
    backlog.end(run_id)
    shipper.tick(1)

    texts[37] = REFUSED
    assert runs.texts(run_id) == texts
    assert shipper.ends == [run_id]


def test_lines_of_a_fenced_supervisor_are_refused_and_it_is_told(runs, shipper):
    run_id, owner, backlog, shipper = shipper()
    runs.ask("select kirby.end_supervisor(%s, 'gone')", owner)

    backlog.put(lines_of(run_id, "late"))
    shipper.tick(1)

    assert runs.texts(run_id) == []
    assert shipper.fenced == [owner]
    assert backlog.is_empty()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_is_lost_at_the_commit_neither_loses_nor_doubles(
    runs, shipper, monkeypatch, when
):
    run_id, _, backlog, shipper = shipper()
    backlog.put(lines_of(run_id, "one", "two"))
    append, lost = shipper._append, []

    def lose(conn, batch):
        with conn.transaction(force_rollback=when == "before"):
            append(conn, batch)
        lost.append(when)
        raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(shipper, "_append", lambda *given: append(*given) if lost else lose(*given))
    with pytest.raises(Unavailable):
        shipper.tick(1)
    shipper._link.retry_at = 0
    shipper.tick(1)

    assert lost == [when]
    assert runs.texts(run_id) == ["one", "two"]


@pytest.fixture
def fragile():
    """A PostgreSQL of its own, that may be killed."""
    root = Path(tempfile.mkdtemp(prefix="kirby-test-", dir=fix_postgres.fast_folder()))
    server = Postgres(root)  # durable: what is committed is what counts
    server.start()
    yield server
    server.stop()
    shutil.rmtree(root)


def test_a_killed_postgresql_costs_no_line_and_no_run(fragile, supervise, tmp_path):
    dsn = fragile.dsn()
    schema.migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        run_id = Runs(conn).start(
            "import time\nfor n in range(100):\n    print(n)\n    time.sleep(0.03)"
        )
    supervisor = supervise(dsn=dsn, worker_dsn=dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        drive(supervisor, lambda: len(Runs(conn).lines(run_id)) > 10)
    before = supervisor.id

    os.kill(fragile.pid, signal.SIGKILL)
    drive(supervisor, lambda: not (fragile.alive or supervisor._link.connection))
    fragile.start()
    with psycopg.connect(dsn, autocommit=True) as conn:
        runs = Runs(conn)
        drive(supervisor, ended(runs, run_id))

        assert runs.get(run_id)["status"] == "succeeded"
        assert runs.texts(run_id) == [str(n) for n in range(100)]
        assert runs.get(run_id)["supervisor_id"] == before
