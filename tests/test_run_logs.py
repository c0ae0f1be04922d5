"""What runs print, on its way to the log: in time, in order, once, whatever it is."""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
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
from kirby.server.supervisor import backlog as backlogs
from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.leftovers import KILLED, Leftovers
from kirby.server.supervisor.lines import Lines
from kirby.server.supervisor.redaction import HIDDEN
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
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.01)
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

    def __init__(self, runs, folder, **options):
        self.runs, self.path, self.go = runs, folder / "done", folder / "go"
        variables = {"DONE": str(self.path), "GO": str(self.go)}
        self.id = runs.start(HUNDRED, variables=variables, **options)

    def has_written(self):
        """Let it write; whether it has written all."""
        self.go.touch()
        return self.path.exists()

    def has_ended(self):
        self.go.touch()
        return self.runs.get(self.id)["status"] in ENDED

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


def test_connections_that_are_cut_again_and_again_cost_no_line(runs, supervise):
    hundred = Hundred(runs, supervise.folder)
    supervisor = supervise()
    seen = cuts = 0
    while cuts < 5:
        drive(supervisor, lambda seen=seen: hundred.has_written() and hundred.lines() > seen)
        seen = hundred.lines() + 10_000
        cuts += runs.value(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'kirby supervisor: logs' and datname = current_database()"
        )

    drive(supervisor, hundred.has_ended, timeout=120)

    hundred.check()


def test_a_postgresql_that_hangs_while_a_hundred_megabytes_are_written(
    fragile, spawn, tmp_path, until
):
    schema.migrate(fragile.dsn())
    with psycopg.connect(fragile.dsn(), autocommit=True) as conn:
        runs = Runs(conn)
        hundred = Hundred(runs, tmp_path)
        spawn(fragile.dsn(), fragile.dsn())
        until(lambda: runs.get(hundred.id)["status"] == "running")

        stopped = family(fragile.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            until(hundred.has_written, timeout=60)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        until(hundred.has_ended, timeout=120)

        hundred.check()


def family(pid):
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


# When the supervisor fails

PROGRAM = """
import sys
from pathlib import Path
from kirby.server.supervisor import Supervisor
_, dsn, worker_dsn, data = sys.argv
supervisor = Supervisor(dsn=dsn, worker_dsn=worker_dsn, data=Path(data), host="here",
                        ensure=lambda *_: Path(sys.prefix))
supervisor.run_forever(ready=lambda: print("ready", flush=True))
"""


@pytest.fixture
def spawn(tmp_path):
    """Start a supervisor as a process of its own, always on the same folder."""
    started = []

    def spawn(dsn, worker_dsn):
        arguments = [sys.executable, "-c", PROGRAM, dsn, worker_dsn, str(tmp_path / "data")]
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield spawn
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_the_next_supervisor_ships_what_a_killed_one_left_on_disk(
    runs, spawn, dsn, as_role, tmp_path, until
):
    """It is killed while it ships from there: nothing of that is lost, or there twice."""
    logins = as_role(dsn, "kirby_server"), as_role(dsn, "kirby_worker")
    hundred = Hundred(runs, tmp_path, rerun_lost=False)
    first = spawn(*logins)
    until(hundred.has_written, timeout=60)
    until(lambda: hundred.lines() > 200_000)

    first.kill()
    first.wait()
    before = hundred.lines()
    assert list(tmp_path.glob("data/spill/*/*"))
    spawn(*logins)

    assert runs.get(hundred.id)["reason"] == "the supervisor was restarted"
    assert list(tmp_path.glob("data/spill/*")) == []
    assert before + 100_000 < hundred.lines()
    assert runs.texts(hundred.id, "kirby") == [KILLED]
    numbers = [int(text) for text in runs.texts(hundred.id, "stdout")]
    assert numbers == sorted(set(numbers))


@pytest.fixture
def left(runs, dsn, as_role, tmp_path, until, monkeypatch):
    """Lines of a run that a supervisor left on disk, and a connection to ship them with."""
    monkeypatch.setattr(backlogs, "CALM", 0)
    run_id = runs.trigger(runs.deploy())
    owner = uuid.uuid4()
    runs.ask("select kirby.register_supervisor(%s, 'here', 'folder', 1, 9)", owner)
    backlog = Backlog(owner, tmp_path / "spill")
    for n in range(5):
        backlog.put(lines_of(run_id, str(n)))
    until(lambda: not (backlog._queues[run_id].tail or backlog._queues[run_id].writing))
    with psycopg.connect(as_role(dsn, "kirby_server"), autocommit=True) as conn:
        yield run_id, owner, conn
    backlog.close()


def test_what_was_left_is_shipped_as_its_owner_and_once(runs, left, tmp_path):
    run_id, _, conn = left
    leftovers = Leftovers(tmp_path / "spill")

    for _ in range(2):
        leftovers.ship(conn, uuid.uuid4(), lambda: False)

    assert runs.texts(run_id) == [KILLED, *"01234"]
    assert os.listdir(tmp_path / "spill") == []


def test_what_belongs_to_runs_of_others_is_removed(runs, left, tmp_path, caplog):
    run_id, owner, conn = left
    runs.ask("select kirby.end_supervisor(%s, 'gone')", owner)

    Leftovers(tmp_path / "spill").ship(conn, uuid.uuid4(), lambda: False)

    assert runs.texts(run_id) == []
    assert os.listdir(tmp_path / "spill") == []
    assert f"output that supervisor {owner} left behind came too late" in caplog.text


def test_what_is_left_stays_there_for_the_next_one_if_there_is_no_database(runs, left, tmp_path):
    run_id, _, conn = left
    conn.close()

    with pytest.raises(Unavailable):
        Leftovers(tmp_path / "spill").ship(conn, uuid.uuid4(), lambda: False)

    assert runs.texts(run_id) == []
    assert os.listdir(tmp_path / "spill")


def test_a_supervisors_own_lines_are_no_leftovers(left, tmp_path):
    _, owner, conn = left

    Leftovers(tmp_path / "spill").ship(conn, owner, lambda: False)

    assert os.listdir(tmp_path / "spill") == [str(owner)]


def test_no_secret_gets_to_the_disk_of_the_supervisor(runs, supervise, dsn, monkeypatch):
    """The token of the run, as it is and in base64, while all waits on disk."""
    monkeypatch.setattr(backlogs, "CALM", 100_000)
    run_id = runs.start(
        """
        import base64, os
        token = os.environ["KIRBY_TOKEN"]
        for n in range(5000):
            print(n, token)
            print(base64.b64encode(f"__token__:{token}".encode()).decode())
        open(os.environ["DONE"], "w").write(token)
        """,
        variables={"DONE": str(supervise.folder / "done")},
    )
    supervisor = supervise()
    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table kirby.log_line in access exclusive mode")
        drive(supervisor, (supervise.folder / "done").exists)
        drive(supervisor, lambda: list(supervise.folder.glob("data/spill/*/*")))
        token = (supervise.folder / "done").read_text()
        kept = b"".join(path.read_bytes() for path in supervise.folder.glob("data/spill/*/*"))
    drive(supervisor, ended(runs, run_id))

    assert HIDDEN.encode() in kept
    assert token.encode() not in kept
    assert base64.b64encode(f"__token__:{token}".encode())[20:40] not in kept
    assert runs.texts(run_id)[0] == f"0 {HIDDEN}"
    assert not any(token in text for text in runs.texts(run_id))
