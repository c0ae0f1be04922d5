"""Lines on their way to the log when the database or the supervisor fails, and on the disk."""

import base64
import os
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
from fix_output import Hundred, ended
from fix_runs import Runs, drive, runs_fixture, supervise_fixture  # noqa: F401

from kirby.core.errors import Unavailable
from kirby.server import schema
from kirby.server.postgres import Postgres
from kirby.server.supervisor import backlog as backlogs
from kirby.server.supervisor import spill as spills
from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.leftovers import KILLED, Leftovers
from kirby.server.supervisor.lines import Lines
from kirby.server.supervisor.redaction import HIDDEN
from kirby.server.supervisor.shipper import REFUSED, Clock, Shipper

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
    monkeypatch.setattr(backlogs, "LEAST_SHARE", 0)
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


def test_a_crash_while_it_is_shipped_doubles_nothing(runs, left, tmp_path, monkeypatch):
    run_id, _, conn = left

    def crash(spill, part):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(spills.Spill, "release", crash)
        with pytest.raises(KeyboardInterrupt):
            Leftovers(tmp_path / "spill").ship(conn, uuid.uuid4(), lambda: False)
    assert runs.texts(run_id) == [KILLED, *"01234"]

    Leftovers(tmp_path / "spill").ship(conn, uuid.uuid4(), lambda: False)

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
