"""The supervisor with real processes on a real database."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
from fix_runs import ENDED, VIRTUALENV, drive, gone, runs_fixture, supervise_fixture  # noqa: F401

from kirby.core.errors import Busy, Invalid, KirbyError, WrongSchema
from kirby.server import schema
from kirby.server.settings import Settings
from kirby.server.supervisor.serve import supervise as supervise_settings
from kirby.server.virtualenvs import Virtualenvs

FOREVER = "import time\nprint('ready')\nwhile True: time.sleep(60)"


def ended(runs, run_id):
    return lambda: runs.get(run_id)["status"] in ENDED


def prints(runs, run_id, text):
    return lambda: text in runs.texts(run_id)


# How runs end


def test_a_script_that_knows_nothing_of_kirby_is_run_and_logged(runs, supervise):
    run_id = runs.start("print('hello')")

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded"
    assert runs.get(run_id)["exit_code"] == 0
    assert runs.texts(run_id) == ["hello"]
    assert runs.events(run_id) == ["run_queued", "run_claimed", "run_started", "run_succeeded"]


@pytest.mark.parametrize(
    ("source", "code", "number", "reason"),
    [
        ("raise SystemExit(3)", 3, None, "exit code 3"),
        ("1 / 0", 1, None, "exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", None, 9, "killed by SIGKILL"),
        ("import os; os.abort()", None, 6, "killed by SIGABRT"),
        ("no python at all", 1, None, "exit code 1"),
    ],
)
def test_a_failed_run_says_how_it_ended(runs, supervise, source, code, number, reason):
    run_id = runs.start(source)

    drive(supervise(), ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["exit_code"], run["signal"]) == ("failed", code, number)
    assert run["reason"] == reason


def test_a_run_whose_virtualenv_cannot_be_made_fails_with_the_reason_in_its_log(runs, supervise):
    def ensure(lock, sdk):
        raise KirbyError("the index does not answer\nsecond line")

    run_id = runs.start("print('never')")

    drive(supervise(ensure=ensure), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "failed"
    assert runs.get(run_id)["reason"] == "virtualenv: the index does not answer"
    assert runs.texts(run_id, "kirby") == [
        "virtualenv: the index does not answer",
        "second line",
    ]


def test_a_run_works_in_a_virtualenv_made_for_its_lock_and_not_in_the_servers(runs, supervise):
    virtualenvs = Virtualenvs(supervise.folder / "virtualenvs")
    deployment = runs.deploy(
        """
        import importlib.util, sys
        print(sys.prefix)
        print(importlib.util.find_spec("kirby"), importlib.util.find_spec("psycopg"))
        """
    )
    supervisor = supervise(ensure=virtualenvs.ensure)
    ids = [runs.trigger(deployment) for _ in range(2)]

    drive(supervisor, lambda: all(ended(runs, run_id)() for run_id in ids), timeout=60)

    [first, nothing], again = runs.texts(ids[0], "stdout"), runs.texts(ids[1], "stdout")
    assert first.startswith(str(virtualenvs.root))
    assert nothing == "None None"
    assert again == [first, nothing]


def test_a_run_whose_python_is_gone_fails(runs, supervise, tmp_path):
    run_id = runs.start("print('never')")

    drive(supervise(ensure=lambda lock, sdk: tmp_path / "none"), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "failed"
    assert "No such file" in runs.texts(run_id)[0]


def test_a_run_with_a_command_line_that_no_process_can_have_fails(runs, supervise):
    run_id = runs.start("print('never')", command=["echo", "x" * 3_000_000])

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["reason"] == ("the process cannot be started: Argument list too long")


def test_no_more_runs_than_slots_are_under_way(runs, supervise):
    deployment = runs.deploy("import time; time.sleep(0.2)")
    ids = [runs.trigger(deployment) for _ in range(5)]
    most = []

    def all_ended():
        states = [runs.get(run_id)["status"] for run_id in ids]
        most.append(sum(state in ("starting", "running") for state in states))
        return set(states) == {"succeeded"}

    drive(supervise(slots=2), all_ended)

    assert max(most) == 2


# What a run gets


def test_a_run_gets_its_variables_and_none_of_the_servers(runs, supervise, monkeypatch):
    monkeypatch.setenv("KIRBY_DSN", "the server's")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the server's")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    runs.conn.execute(
        "insert into kirby.variable (environment_id, job_id, name, value, updated_by)"
        " select e.id, null, n, v, 'test' from (values (null::smallint, 'A', 'global'),"
        " (null, 'B', 'global'), (1::smallint, 'B', 'environment')) as e (id, n, v)"
    )
    run_id = runs.start(
        "import json, os; print(json.dumps(dict(os.environ)))",
        name="greedy",
        variables={"C": "deployment", "KIRBY_RUN": "forged", "EMPTY": ""},
    )

    drive(supervise(), ended(runs, run_id))

    [line] = runs.texts(run_id)
    got = json.loads(line)
    assert (got["A"], got["B"], got["C"], got["EMPTY"]) == (
        "global", "environment", "deployment", "",
    )  # fmt: skip
    assert "AWS_SECRET_ACCESS_KEY" not in got
    assert got["https_proxy"] == "http://proxy:3128"
    assert "kirby_worker" in got["KIRBY_DSN"]
    assert got["KIRBY_RUN"] == str(run_id)
    assert (got["KIRBY_JOB"], got["KIRBY_ENVIRONMENT"]) == ("greedy", "dev")
    assert got["KIRBY_RELEASE"].startswith("greedy ")
    assert got["PATH"].startswith(f"{VIRTUALENV}/bin:")


def test_a_run_reaches_the_log_with_its_token_until_it_ends(runs, supervise, dsn, as_role):
    run_id = runs.start(
        """
        import os, psycopg
        conn = psycopg.connect(os.environ["KIRBY_DSN"], autocommit=True)
        conn.execute("select set_config('kirby.token', %s, false)", [os.environ["KIRBY_TOKEN"]])
        print(conn.execute("select * from kirby.hello()").fetchone())
        open(os.environ["TELL"], "w").write(os.environ["KIRBY_TOKEN"])
        """,
        variables={"TELL": str(supervise.folder / "token")},
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.texts(run_id) == [f"(1, 'dev', {run_id})"]
    token = (supervise.folder / "token").read_text()
    with psycopg.connect(as_role(dsn, "kirby_worker")) as conn:
        conn.execute("select set_config('kirby.token', %s, false)", [token])
        with pytest.raises(psycopg.Error, match="not valid"):
            conn.execute("select * from kirby.hello()")


def test_a_runs_own_token_never_gets_into_its_log(runs, supervise):
    run_id = runs.start("import os; print('token: ' + os.environ['KIRBY_TOKEN'])")

    drive(supervise(), ended(runs, run_id))

    assert runs.texts(run_id) == ["token: •••"]


def test_a_run_works_in_a_folder_of_its_own_that_is_removed(runs, supervise):
    run_id = runs.start("import os; print(os.getcwd()); open('left', 'w').write('behind')")
    supervisor = supervise()

    drive(supervisor, ended(runs, run_id))

    [folder] = runs.texts(run_id)
    assert folder.endswith(f"/runs/{run_id}")
    drive(supervisor, lambda: not Path(folder).exists())


def test_a_run_has_no_core_dumps_no_input_and_its_own_process_group(runs, supervise):
    run_id = runs.start(
        """
        import os, resource, sys
        print(resource.getrlimit(resource.RLIMIT_CORE)[0], repr(sys.stdin.read()))
        print(os.getpgrp() == os.getpid() == os.getsid(0), len(os.listdir("/proc/self/fd")))
        """
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.texts(run_id) == ["0 ''", "True 4"]  # 0, 1, 2 and the listing itself


# Cancel


def test_a_cancelled_run_is_asked_to_end(runs, supervise):
    run_id = runs.start(
        """
        import signal, sys, time
        def end(number, frame):
            print("bye")
            sys.exit(7)
        signal.signal(signal.SIGTERM, end)
        print("ready")
        time.sleep(60)
        """
    )
    supervisor = supervise()
    drive(supervisor, prints(runs, run_id, "ready"))

    runs.ask("select kirby.cancel_run(%s, 'enough', 'test')", run_id)
    runs.conn.execute("notify kirby_run")
    drive(supervisor, ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["exit_code"], run["reason"]) == ("cancelled", 7, "enough")
    assert runs.texts(run_id) == ["ready", "bye"]


def test_a_cancelled_run_that_does_not_listen_is_killed_with_all_it_started(runs, supervise):
    run_id = runs.start(
        """
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"])
        print(child.pid)
        time.sleep(600)
        """
    )
    supervisor = supervise(grace=0.3)
    [grandchild] = drive(supervisor, lambda: runs.texts(run_id))

    runs.ask("select kirby.cancel_run(%s, 'enough', 'test')", run_id)
    drive(supervisor, ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["signal"]) == ("cancelled", signal.SIGKILL)
    assert gone(run["pid"])
    drive(supervisor, lambda: gone(int(grandchild)))


def test_a_run_is_cancelled_while_its_virtualenv_is_built(runs, supervise):
    built = threading.Event()

    def ensure(lock, sdk):
        built.wait(20)
        return VIRTUALENV

    run_id = runs.start("print('never')")
    supervisor = supervise(ensure=ensure)
    drive(supervisor, lambda: runs.get(run_id)["status"] == "starting")

    runs.ask("select kirby.cancel_run(%s, 'enough', 'test')", run_id)
    drive(supervisor, ended(runs, run_id))
    built.set()
    drive(supervisor, lambda: not supervisor._starter.fetch())

    assert runs.get(run_id)["status"] == "cancelled"
    assert runs.events(run_id)[-2:] == ["run_cancel_requested", "run_cancelled"]
    assert runs.texts(run_id) == []


# What a run leaves running


def test_what_a_run_left_behind_in_its_group_is_killed(runs, supervise):
    run_id = runs.start("import subprocess; print(subprocess.Popen(['sleep', '600']).pid)")
    supervisor = supervise()

    drive(supervisor, ended(runs, run_id), timeout=5)

    drive(supervisor, lambda: gone(int(runs.texts(run_id)[0])))


def test_a_grandchild_that_keeps_the_pipe_open_does_not_outlive_the_run(runs, supervise):
    run_id = runs.start(
        "import subprocess\nprint(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    )

    supervisor = supervise()
    drive(supervisor, ended(runs, run_id), timeout=6)

    assert runs.get(run_id)["status"] == "succeeded"
    drive(supervisor, lambda: gone(int(runs.texts(run_id, "stdout")[0])))


def test_a_run_may_close_its_output_and_go_on(runs, supervise):
    run_id = runs.start(
        """
        import os, time
        print("last words")
        os.close(1); os.close(2)
        time.sleep(0.5)
        os._exit(4)
        """
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["reason"] == "exit code 4"
    assert runs.texts(run_id) == ["last words"]


# Daemons


def test_a_daemon_that_ends_is_started_again_after_a_back_off(runs, supervise):
    deployment = runs.deploy("raise SystemExit(1)", kind="daemon")

    drive(supervise(), lambda: len(runs.of(deployment)) >= 4)

    first, second, third, fourth = runs.of(deployment)[:4]
    assert [run["restarts"] for run in (first, second, third, fourth)] == [0, 1, 2, 3]
    waits = [
        (after["not_before"] - before["ended_at"]).total_seconds()
        for before, after in ((first, second), (second, third), (third, fourth))
    ]
    assert 0.5 <= waits[0] <= 1.1
    assert 1.0 <= waits[1] <= 2.1
    assert 2.0 <= waits[2] <= 4.1


def test_a_killed_daemon_is_replaced_and_its_claims_are_free(runs, supervise):
    deployment = runs.deploy(FOREVER, kind="daemon", replicas=2)
    supervisor = supervise()
    drive(supervisor, lambda: [r["status"] for r in runs.of(deployment)] == ["running"] * 2)
    victim = runs.of(deployment)[0]
    runs.ask(
        """
        with t as (insert into kirby.topic (environment_id, name) values (1, 'orders')
                   returning id),
             s as (insert into kirby.subscription (topic_id, name, mode)
                   select id, 'reader', 'ordered' from t returning id)
        insert into kirby.claim (subscription_id, lane, first, last, upto, run_id, lease_until)
        select id, 0, 1, 9, 9, %s, 'infinity' from s returning id
        """,
        victim["id"],
    )

    os.kill(victim["pid"], signal.SIGKILL)

    def replaced():
        live = [r for r in runs.of(deployment) if r["status"] == "running"]
        return len(live) == 2 and victim["id"] not in [r["id"] for r in live]

    drive(supervisor, replaced)
    assert runs.get(victim["id"])["reason"] == "killed by SIGKILL"
    assert runs.value("select lease_until = '-infinity' from kirby.claim")


def test_fewer_replicas_end_the_rest(runs, supervise):
    name = "many"
    deployment = runs.deploy(FOREVER, name=name, kind="daemon", replicas=3)
    supervisor = supervise()
    drive(supervisor, lambda: [r["status"] for r in runs.of(deployment)] == ["running"] * 3)

    runs.deploy(FOREVER, name=name, kind="daemon", replicas=1)

    def one_left():
        return sorted(r["status"] for r in runs.of(deployment)) == [
            "cancelled", "cancelled", "running",
        ]  # fmt: skip

    drive(supervisor, one_left)


# The supervisor itself


def newer(runs, protocol):
    """As if a Kirby to come had migrated the database."""
    runs.conn.execute("update kirby.alembic_version set version_num = '9999'")
    runs.conn.execute(
        "create or replace function kirby.server_protocol() returns integer language sql immutable"
        f" as 'select {protocol}'"
    )


def test_it_works_on_with_the_schema_of_the_next_version(runs, supervise, dsn, as_role):
    newer(runs, schema.PROTOCOL + 1)
    run_id = runs.start("print('hello')")

    schema.check(as_role(dsn, "kirby_server"), supervisor=True)
    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded"
    with pytest.raises(WrongSchema, match="newer than this Kirby"):
        schema.check(as_role(dsn, "kirby_server"))


@pytest.mark.parametrize("away", [2, -1])
def test_it_says_when_the_schema_is_not_its_own(runs, supervise, dsn, as_role, away):
    newer(runs, schema.PROTOCOL + away)

    with pytest.raises(WrongSchema):
        schema.check(as_role(dsn, "kirby_server"), supervisor=True)
    with pytest.raises(WrongSchema, match="upgrade Kirby on here" if away > 0 else "migrate"):
        supervise().tick()


def test_a_second_supervisor_on_the_same_folder_is_refused(supervise):
    supervise()

    with pytest.raises(Busy, match=r"another supervisor \(process \d+\) runs on"):
        supervise()


def test_it_needs_to_know_what_runs_connect_with():
    with pytest.raises(Invalid, match="KIRBY_WORKER_DSN"):
        supervise_settings(Settings(dsn="postgresql://nowhere"))


def test_it_waits_for_a_database_that_is_not_there_yet(supervise, caplog):
    supervisor = supervise(dsn="postgresql://kirby_server@127.0.0.1:1/none")

    drive(supervisor, lambda: "cannot be used" in caplog.text)

    assert supervisor._link.connection is None
    assert caplog.text.count("kirby supervisor: the database cannot be used") == 1


def test_it_goes_on_when_its_connections_are_cut(runs, supervise):
    run_id = runs.start("import time\nfor n in range(40):\n    print(n)\n    time.sleep(0.05)")
    supervisor = supervise()

    for _ in range(3):
        seen = len(runs.lines(run_id))
        drive(supervisor, lambda seen=seen: len(runs.lines(run_id)) > seen + 5)
        runs.ask(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name like 'kirby supervisor%%' and datname = current_database()"
        )
    drive(supervisor, ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded"
    assert runs.texts(run_id) == [str(n) for n in range(40)]


def test_it_uses_three_connections(runs, supervise):
    run_id = runs.start("print('hello')")

    drive(supervise(), ended(runs, run_id))

    assert (
        runs.value(
            "select count(*) from pg_stat_activity"
            " where usename = 'kirby_server' and datname = current_database()"
        )
        <= 3
    )


def test_a_fenced_supervisor_ends_its_runs_and_writes_nothing_more(runs, supervise):
    run_id = runs.start("import time\nfor n in range(10**6):\n    print(n)\n    time.sleep(0.01)")
    supervisor = supervise()
    drive(supervisor, prints(runs, run_id, "5"))
    before, pid = supervisor.id, runs.get(run_id)["pid"]

    runs.ask("select kirby.end_supervisor(%s, 'paused for too long')", before)
    written = len(runs.lines(run_id))
    again = runs.value("select id from kirby.run where retry_of = %s", run_id)
    drive(supervisor, lambda: runs.get(again)["status"] == "running")

    assert supervisor.id != before
    assert gone(pid)
    assert runs.get(run_id)["status"] == "lost"
    assert len(runs.lines(run_id)) == written
    assert runs.get(again)["supervisor_id"] == supervisor.id


def test_a_supervisor_that_stops_gives_its_runs_back(runs, supervise):
    run_id = runs.start(FOREVER)
    first = supervise()
    drive(first, prints(runs, run_id, "ready"))

    first.stop()

    run = runs.get(run_id)
    assert (run["status"], run["reason"]) == ("lost", "the supervisor was stopped")
    assert gone(run["pid"])
    again = runs.value("select id from kirby.run where retry_of = %s", run_id)
    assert runs.get(again)["status"] == "queued"
    drive(supervise(), prints(runs, again, "ready"))


def test_a_run_that_ended_before_the_stop_keeps_its_result(runs, supervise):
    run_id = runs.start("print('done')")
    supervisor = supervise()
    drive(supervisor, lambda: runs.get(run_id)["status"] == "running")
    pid = runs.get(run_id)["pid"]
    while not gone(pid):
        time.sleep(0.01)

    supervisor.stop()

    assert runs.get(run_id)["status"] == "succeeded"
    assert runs.texts(run_id) == ["done"]


def test_it_is_not_the_last_lines_that_are_lost_when_it_stops(runs, supervise):
    run_id = runs.start(
        """
        import signal, sys, time
        def end(number, frame):
            for n in range(2000): print("last", n)
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("ready")
        time.sleep(60)
        """
    )
    supervisor = supervise()
    drive(supervisor, prints(runs, run_id, "ready"))

    supervisor.stop()

    assert runs.texts(run_id)[-1] == "last 1999"
    assert runs.get(run_id)["status"] == "lost"


# In a process of its own

PROGRAM = """
import sys
from pathlib import Path
from kirby.server.supervisor import Supervisor
_, dsn, worker_dsn, data = sys.argv
supervisor = Supervisor(dsn=dsn, worker_dsn=worker_dsn, data=Path(data), host="here",
                        ensure=lambda lock, sdk: Path(sys.prefix))
supervisor.run_forever(ready=lambda: print("ready", flush=True))
"""


@pytest.fixture
def spawn(dsn, as_role, tmp_path):
    """Start a supervisor as a process of its own."""
    started = []

    def spawn():
        arguments = [as_role(dsn, "kirby_server"), as_role(dsn, "kirby_worker"), tmp_path / "data"]
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield spawn
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_children_die_with_a_killed_supervisor_and_the_next_one_runs_them_again(runs, spawn, until):
    daemon = runs.deploy(FOREVER, kind="daemon")
    run_id = runs.start(FOREVER)
    first = spawn()
    until(prints(runs, run_id, "ready"))
    until(lambda: [r["status"] for r in runs.of(daemon)] == ["running"])
    pids = [runs.get(run_id)["pid"], runs.of(daemon)[0]["pid"]]

    first.kill()
    first.wait()
    until(lambda: all(gone(pid) for pid in pids), timeout=2)
    spawn()

    until(lambda: runs.get(run_id)["status"] == "lost")
    assert runs.get(run_id)["reason"] == "the supervisor was restarted"
    again = runs.value("select id from kirby.run where retry_of = %s", run_id)
    until(prints(runs, again, "ready"))
    until(lambda: [r["status"] for r in runs.of(daemon)] == ["lost", "running"])


def test_what_a_killed_supervisors_run_had_started_is_swept(runs, spawn, until):
    run_id = runs.start(
        "import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)\n"
        "time.sleep(600)"
    )
    first = spawn()
    [grandchild] = until(lambda: runs.texts(run_id))

    first.kill()
    first.wait()
    spawn()

    until(lambda: gone(int(grandchild)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_good_order(runs, spawn, until, number):
    run_id = runs.start(FOREVER)
    supervisor = spawn()
    until(prints(runs, run_id, "ready"))

    supervisor.send_signal(number)

    assert supervisor.wait(10) == 0
    assert runs.get(run_id)["reason"] == "the supervisor was stopped"
    assert runs.value("select count(*) from kirby.supervisor where ended_at is null") == 0


def test_runs_leave_no_zombies_and_no_descriptors_behind(runs, supervise):
    deployment = runs.deploy("print('x')")
    supervisor = supervise()
    drive(supervisor, ended(runs, runs.trigger(deployment)))
    drive(supervisor, lambda: supervisor._leader._link.connection)
    drive(supervisor, lambda: supervisor._leader._housekeeper._link.connection)
    drive(supervisor, lambda: supervisor._notifier._link.connection)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(10):
        drive(supervisor, ended(runs, runs.trigger(deployment)))

    drive(supervisor, lambda: len(os.listdir("/proc/self/fd")) <= before)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not any(gone(pid) for pid in children)
