"""Several supervisors as processes of their own: killed, stopped, drained; nothing goes missing."""

import os
import random
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from fix_runs import gone, runs_fixture  # noqa: F401

PROGRAM = """
import sys
from pathlib import Path
from kirby.server.supervisor import Supervisor
_, dsn, worker_dsn, data, host, lease, slots, labels = sys.argv
supervisor = Supervisor(
    dsn=dsn, worker_dsn=worker_dsn, data=Path(data), host=host, lease=float(lease),
    slots=int(slots), labels=labels.split(), ensure=lambda lock, sdk: Path(sys.prefix))
supervisor.run_forever(ready=lambda: print("ready", flush=True))
"""
FOREVER = "import time\nprint('ready')\nwhile True: time.sleep(60)"

# How many runs; ten of a daemon's replicas for a hundred of them. The whole house: 500.
RUNS = min(int(os.environ.get("KIRBY_TEST_EXAMPLES", "40")), 500)


@pytest.fixture(name="spawn")
def spawn_fixture(dsn, as_role, tmp_path):
    """`spawn("a")`: a supervisor of host a, as a process of its own."""
    started = []

    def spawn(host, *, lease=3.0, slots=40, labels=""):
        folder = tmp_path / f"{host}-{len(started)}"
        arguments = [as_role(dsn, "kirby_server"), as_role(dsn, "kirby_worker"), folder, host,
                     lease, slots, labels]  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        started.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield spawn
    for child in started:
        child.send_signal(signal.SIGCONT)
        child.kill()
        child.wait()
        child.stdout.close()


def marked(mark):
    """The living processes whose variables have this mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}".encode() in path.read_bytes() and not gone(path.parent.name):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def command(pid):
    """What a process runs; nothing if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def mark():
    """In the variables of everything that a test starts."""
    return uuid.uuid4().hex


def supervisor_of(runs, run_id):
    return runs.value(
        "select s.pid from kirby.run r join kirby.supervisor s on s.id = r.supervisor_id"
        " where r.id = %s", run_id,
    )  # fmt: skip


def running(runs, *deployments):
    return runs.ask(
        "select r.id, r.deployment_id, s.host, s.pid from kirby.run r"
        " join kirby.supervisor s on s.id = r.supervisor_id"
        " where r.status = 'running' and r.cancel_at is null and r.deployment_id = any(%s)",
        list(deployments),
    )  # fmt: skip


# Killed


GRANDCHILDREN = """
    import os, subprocess, sys, time
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    same = subprocess.Popen(sleep)
    own = subprocess.Popen(sleep, start_new_session=True)
    orphan = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    subprocess.run([sys.executable, "-c", orphan, *sleep])
    print("ready")
    time.sleep(600)
    """


def test_all_that_was_started_dies_with_a_killed_supervisor(runs, spawn, until, mark):
    """Also what made itself a session of its own, and whose parent has ended."""
    run_id = runs.start(GRANDCHILDREN, variables={"MARK": mark})
    supervisor = spawn("a")
    until(lambda: "ready" in runs.texts(run_id))
    assert len(marked(mark)) == 4

    supervisor.kill()
    supervisor.wait()

    until(lambda: not marked(mark), timeout=5)


def test_a_reaper_that_is_killed_is_replaced(runs, spawn, until, mark):
    run_id = runs.start(GRANDCHILDREN, variables={"MARK": mark})
    supervisor = spawn("a")
    until(lambda: "ready" in runs.texts(run_id))

    def reapers():
        found = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        return [pid for pid in found if b"reaper.py" in command(pid)]

    [first] = reapers()
    os.kill(int(first), signal.SIGKILL)
    until(lambda: reapers() not in ([], [first]))
    supervisor.kill()
    supervisor.wait()

    until(lambda: not marked(mark), timeout=5)


def test_what_a_stopped_supervisor_started_is_killed_when_its_lease_is_long_over(
    runs, spawn, until, mark
):
    """Nobody may run it twice at once for long: others have its runs by now."""
    run_id = runs.start(GRANDCHILDREN, variables={"MARK": mark}, rerun_lost=False)
    supervisor = spawn("a", lease=1.0)
    until(lambda: "ready" in runs.texts(run_id))

    supervisor.send_signal(signal.SIGSTOP)

    until(lambda: not marked(mark), timeout=10)


def test_what_was_killed_while_it_was_stopped_is_lost_and_not_failed(runs, spawn, until, mark):
    """With nobody else there its lease is still its own when it goes on."""
    run_id = runs.start(FOREVER, variables={"MARK": mark})
    supervisor = spawn("a", lease=1.0)
    until(lambda: "ready" in runs.texts(run_id))
    supervisor.send_signal(signal.SIGSTOP)
    until(lambda: not marked(mark), timeout=10)

    supervisor.send_signal(signal.SIGCONT)

    until(lambda: runs.get(run_id)["ended_at"])
    assert chain(runs, run_id)[0] == "lost"
    until(lambda: chain(runs, run_id) == ["lost", "running"])


# Drained


def test_a_drained_supervisor_gives_its_daemons_away_and_ends(runs, spawn, until):
    daemon = runs.deploy(FOREVER, kind="daemon", replicas=4)
    first = spawn("a")
    spawn("b")
    until(lambda: sorted(r["host"] for r in running(runs, daemon)) == ["a", "a", "b", "b"])
    run_id = runs.start("import time; time.sleep(1)")
    until(lambda: runs.get(run_id)["status"] == "running")

    runs.ask(
        "select kirby.drain_supervisor(id, true, true) from kirby.supervisor"
        " where pid = %s and ended_at is null", first.pid,
    )  # fmt: skip

    assert first.wait(30) == 0
    until(lambda: [r["host"] for r in running(runs, daemon)] == ["b"] * 4)
    until(lambda: runs.get(run_id)["status"] == "succeeded")
    assert not runs.ask("select id from kirby.run where status = 'lost'")


def test_replicas_follow_hosts_that_come_and_go(runs, spawn, until):
    daemon = runs.deploy(FOREVER, kind="daemon", replicas=4)

    def hosts(*expected):
        return lambda: sorted(r["host"] for r in running(runs, daemon)) == sorted(expected)

    spawn("a")
    until(hosts(*"aaaa"))
    second = spawn("b")
    until(hosts(*"aabb"), timeout=40)
    second.kill()
    second.wait()
    until(hosts(*"aaaa"), timeout=40)


def test_labels_choose_the_host(runs, spawn, until):
    spawn("a")
    waiting = runs.start("print('here')", labels=["gpu"])
    plain = runs.start("print('anywhere')")
    until(lambda: runs.get(plain)["status"] == "succeeded")
    assert runs.get(waiting)["status"] == "queued"

    second = spawn("b", labels="gpu eu")

    until(lambda: runs.get(waiting)["status"] == "succeeded")
    assert supervisor_of(runs, waiting) == second.pid


# All at once


SHORT = """
    import random, subprocess, sys, time
    print("begins")
    time.sleep(random.random() * 0.5)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    print("ends")
    """
SERIAL = SHORT.replace("0.5", "0.1")


def ends(runs):
    """How many ends each run has in the log."""
    return runs.ask(
        """
        select r.id, count(e.position) as ends
          from kirby.run r
          left join kirby.job_event e on e.run_id = r.id
           and e.type in ('run_succeeded', 'run_failed', 'run_cancelled', 'run_timed_out',
                          'run_lost', 'run_skipped')
         where r.ended_at is not null
         group by r.id
        """
    )


def written_after_the_end(runs):
    return runs.ask(
        """
        select e.run_id, x.what from kirby.job_event e
          join lateral (
               select 'line' as what from kirby.log_line l
                where l.run_id = e.run_id and l.position > e.position
                union all
               select o.type from kirby.job_event o
                where o.run_id = e.run_id and o.position > e.position) x on true
         where e.type = 'run_lost'
        """
    )


def chain(runs, run_id):
    """The statuses of a run and of those that ran it again."""
    found = []
    while run_id is not None:
        found.append(runs.get(run_id)["status"])
        rows = runs.ask("select id from kirby.run where retry_of = %s", run_id)
        assert len(rows) <= 1, f"run {run_id} was run again twice"
        run_id = rows[0]["id"] if rows else None
    return found


def test_with_one_killed_and_one_stopped_every_run_ends_once(runs, spawn, until, mark):
    chance = random.Random(4)
    names = {"MARK": mark}
    daemons = [runs.deploy(FOREVER, kind="daemon", variables=names) for _ in range(RUNS // 10)]
    short = runs.deploy(SHORT, variables=names)
    serial = runs.deploy(SERIAL, concurrency="queue", variables=names)
    victims = [spawn(host, slots=20 + RUNS // 10) for host in "abc"]
    until(lambda: len(running(runs, *daemons)) == len(daemons), timeout=120)
    ids = [runs.trigger(short) for _ in range(RUNS)] + [runs.trigger(serial) for _ in range(10)]

    def done():
        return runs.value("select count(*) from kirby.run where id = any(%s) and ended_at is not"
                          " null", ids)  # fmt: skip

    until(lambda: done() > RUNS // 8, timeout=120)
    killed, stopped = chance.sample(victims, 2)
    killed.kill()
    stopped.send_signal(signal.SIGSTOP)
    until(lambda: runs.value("select count(*) from kirby.supervisor where ended_at is not null"
                             " and pid = %s", stopped.pid), timeout=60)  # fmt: skip
    lost = runs.ask("select id from kirby.run where status = 'lost'")
    stopped.send_signal(signal.SIGCONT)
    killed.wait()

    def over():
        live = runs.ask("select id from kirby.run where replica is null and ended_at is null")
        return not live and len(running(runs, *daemons)) == len(daemons)

    until(over, timeout=300)

    assert lost
    expected = [[*["lost"] * n, "succeeded"] for n in range(4)]
    assert [found for run_id in ids if (found := chain(runs, run_id)) not in expected] == []
    assert {row["ends"] for row in ends(runs)} == {1}
    assert written_after_the_end(runs) == []
    assert runs.ask("select * from kirby.verify_runs()") == []
    until(lambda: len(marked(mark)) == len(daemons), timeout=30)
    for child in set(victims) - {killed}:
        child.send_signal(signal.SIGTERM)
    for child in victims:
        child.wait(60)
    until(lambda: marked(mark) == [], timeout=10)
