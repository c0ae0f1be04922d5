"""Through a pgbouncer that pools transactions, everything works but being woken."""

import contextlib
import json
import os
import subprocess
import sys
import threading

import psycopg
import pytest
from fix_pgbouncer import CLEAN, bouncer_fixture, left_behind, pooled_fixture  # noqa: F401
from fix_runs import drive, runs_fixture, supervise_fixture  # noqa: F401
from fix_sdk import (  # noqa: F401
    FOREIGN,
    TOKEN,
    house_fixture,
    scripts_fixture,
    sdk_fixture,
    stop_after,
)
from starlette.testclient import TestClient

import kirby
from kirby.core import db, protocol, topics
from kirby.core.errors import Conflict, Denied, Unavailable
from kirby.sdk import looking, session
from kirby.server import database
from kirby.server.settings import Settings
from kirby.server.web import create_app

orders = kirby.Topic("orders")
POOLED = "kirby: the database is behind a connection pooler"


def values(topic="orders"):
    return [message.value for message in kirby.topic(topic).read()]


# What stands between


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_seen_whatever_its_mode(dsn, bouncer, mode):
    with db.connect(dsn) as conn, db.connect(bouncer(mode).through(dsn)) as pooled:
        assert (db.is_pooled(conn), db.is_pooled(pooled)) == (False, True)


def test_it_is_said_once(pooled, capsys, monkeypatch):
    monkeypatch.setattr(session, "_said", set())
    orders.publish(1)
    session.get().drop()
    orders.publish(2)
    thread = threading.Thread(target=orders.publish, args=[3])
    thread.start()
    thread.join()

    assert capsys.readouterr().err.count(POOLED) == 1
    assert values() == [1, 2, 3]


def test_without_a_pooler_nothing_is_said(sdk, capsys):
    orders.publish(1)

    assert capsys.readouterr().err == ""


# Who is who


def test_identities_do_not_meet_on_a_connection_of_the_pool(house, bouncer, as_role):
    house.give_token(FOREIGN, "preprod")
    dsn = bouncer(size=1).through(as_role(house.dsn, "kirby_worker"))
    with db.connect(dsn) as mine, db.connect(dsn) as foreign, db.connect(dsn) as nobody:
        protocol.greet(mine, token=TOKEN, environment=None)
        protocol.greet(foreign, token=FOREIGN, environment=None)
        for number in range(3):
            for conn in (mine, foreign):
                topics.write(conn, f'{{"orders": [{{"v": {number}}}]}}', "{}")
            with pytest.raises(Denied, match="kirby_worker needs a token"):
                topics.write(nobody, '{"orders": [{"v": 9}]}', "{}")

        assert [entry.value for entry in topics.read(mine, "orders")] == [0, 1, 2]
        assert [entry.value for entry in topics.read(foreign, "orders")] == [0, 1, 2]
        assert left_behind(dsn) == CLEAN


def test_a_transaction_has_its_identity_from_the_beginning_to_the_end(house, bouncer, as_role):
    dsn = bouncer(size=1).through(as_role(house.dsn, "kirby_worker"))
    with db.connect(dsn) as conn:
        protocol.greet(conn, token=TOKEN, environment=None)
        with conn.transaction():
            topics.write(conn, '{"orders": [{"v": 1}]}', "{}")
            with conn.transaction():
                topics.write(conn, '{"orders": [{"v": 2}]}', "{}")
        with contextlib.suppress(ZeroDivisionError), conn.transaction():
            topics.write(conn, '{"orders": [{"v": 3}]}', "{}")
            raise ZeroDivisionError

        assert [entry.value for entry in topics.read(conn, "orders")] == [1, 2]
    assert left_behind(dsn) == CLEAN


def test_where_libpq_has_no_pipelines_a_transaction_does_it(house, bouncer, as_role, monkeypatch):
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    dsn = bouncer(size=1).through(as_role(house.dsn, "kirby_worker"))
    with db.connect(dsn) as conn:
        protocol.greet(conn, token=TOKEN, environment=None)
        topics.write(conn, '{"orders": [{"v": 1}]}', "{}")

        assert [entry.value for entry in topics.read(conn, "orders")] == [1]
    assert left_behind(dsn) == CLEAN


@pytest.mark.parametrize("statement", ["select 1", "select 1/0"])
def test_nothing_follows_the_end_of_a_transaction(pooled, tmp_path, statement):
    """A Flush behind the Sync raced with the pooler, which closed connections or lost them."""
    conn = session.get().connection
    trace = tmp_path / "trace"
    with open(trace, "w") as file:
        conn.pgconn.trace(file.fileno())
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            conn.execute(statement)
        conn.pgconn.untrace()
    lines = [line.split("\t") for line in trace.read_text().splitlines()]
    sent = [line[3] for line in lines if line[1] == "F"]
    assert sent[-1] == "Sync"
    assert sent.count("Sync") == 1


def test_an_error_leaves_the_connection_usable(pooled):
    conn = session.get().connection
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("select 1/0")
    assert db.scalar(conn, "select current_setting('kirby.token')") == TOKEN


def test_threads_that_share_a_connection_do_not_share_a_pipeline(pooled):
    conn = session.get().connection
    errors, done = [], []

    def ask(good):
        for _ in range(100):
            try:
                done.append(db.scalar(conn, "select 1" if good else "select 1/0"))
            except psycopg.errors.DivisionByZero:
                errors.append(1)

    threads = [threading.Thread(target=ask, args=[good]) for good in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len(errors)) == (100, 100)


# Everything works


def test_publish_and_read(pooled):
    position = orders.publish({"a": 1}, key="K", headers={"h": 1})
    orders.publish_many(range(2500))
    with kirby.transaction():
        orders.publish("together")
        kirby.state("stock")["apple"] = 3

    found = list(orders.read())
    assert (found[0].position, found[0].key, found[0].headers) == (position, "K", {"h": 1})
    assert [message.value for message in found[1:]] == [*range(2500), "together"]
    assert left_behind(os.environ["KIRBY_DSN"]) == CLEAN


def test_states(pooled):
    stock = kirby.state("stock")
    stock["apple"] = 3
    assert stock.update("apple", lambda n: n + 1) == 4
    overtaken = kirby.sdk.work.Work()
    overtaken.write("stock", "apple", "set", "100")
    with contextlib.suppress(Conflict), kirby.transaction():
        stock["apple"] += 1
        session.get().commit(overtaken)

    assert stock["apple"] == 100
    del stock["apple"]
    assert "apple" not in stock


def test_a_stream_with_retries_and_states(pooled):
    orders.publish_many([kirby.Out(n, key=f"k{n % 5}") for n in range(50)])
    count, stop, failed = kirby.state("count"), stop_after(51), []

    @kirby.stream("orders", to="bills", name="billing")
    def bill(value, message: kirby.Message):
        stop()
        if value == 7 and not failed:
            failed.append(7)
            pooled.conn.execute("update kirby.due set due_at = now()")
            raise RuntimeError("once")
        count[message.key] = count.get(message.key, 0) + 1
        return value

    kirby.run()

    done = values("bills")
    assert len(done) == len(set(done))
    assert set(done) <= set(range(50))
    assert sum(count.values()) == len(done)


def test_the_loop_form(pooled):
    orders.publish_many(range(5))
    for message in orders.consume("loop"):
        kirby.topic("bills").publish(message.value, key=str(message.value))
        if len(pooled.values("bills")) == 4:
            break

    assert pooled.value("select count(*) from kirby.claim where lease_until > now()") == 0


SERVE = """
@kirby.stream("orders", to="bills")
def bill(value):
    say(value)
    return value
kirby.run()
"""


def test_two_workers_and_a_pool_of_two_do_everything_once_though_the_pool_is_cut(
    pooled, scripts, until
):
    workers = [scripts(SERVE, LEASE="2") for _ in range(2)]
    for part in range(4):
        for number in range(part * 100, part * 100 + 100):
            pooled.publish("orders", number, key=str(number))
        until(lambda least=part * 100 + 20: len(pooled.values("bills")) >= least)
        pooled.conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )

    until(lambda: len(pooled.values("bills")) >= 400)
    for worker in workers:
        worker.signal()
        code, errors = worker.end()
        assert (code, errors.count(POOLED)) == (0, 1), errors
    assert sorted(pooled.values("bills")) == list(range(400))
    assert pooled.backlog() == 0


def test_a_busy_worker_looks_often_and_an_idle_one_seldom(pooled, monkeypatch):
    waits, stop = [], stop_after(2)
    monkeypatch.setattr(looking.random, "uniform", lambda a, b: 1)
    monkeypatch.setattr(db.time, "sleep", lambda seconds: seen(seconds))
    orders.publish(1)

    def seen(seconds):
        waits.append(seconds)
        if len(waits) == 8:
            orders.publish(2)

    @kirby.stream("orders")
    def take(value):
        stop()

    kirby.run()

    assert waits[:5] == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert max(waits) <= 1.25


def test_pauses_begin_short_after_something_was_found_and_double():
    look = looking.Looking()
    assert 0.0375 <= look.pause(1) <= 0.0625
    for _ in range(10):
        look.pause(1)
    assert 0.75 <= look.pause(1) <= 1.25
    look.found()
    assert look.pause(1) <= 0.0625
    assert looking.Looking().pause(0.01) <= 0.0125


def test_a_pooler_that_goes_away_is_waited_for(pooled, bouncer, monkeypatch):
    orders.publish(1)
    other = bouncer(size=1)
    monkeypatch.setenv("KIRBY_DSN", other.through(pooled.environ["KIRBY_DSN"]))
    session.close()
    orders.publish(2)
    other.stop()

    with pytest.raises(Unavailable):
        orders.publish(3)


TASKS = """
import kirby

@kirby.task(max_attempts=3)
def add(a, b):
    if b == 13:
        raise RuntimeError("never")
    return a + b
"""


def test_tasks_in_a_pool_of_processes_and_threads(pooled, as_role, tmp_path, monkeypatch):
    (tmp_path / "sums.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    from sums import add

    server = {"KIRBY_DSN": as_role(pooled.environ["KIRBY_DSN"], "kirby_server"), "KIRBY_TOKEN": ""}
    environ = {**os.environ, **server, "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    command = ["-m", "kirby", "worker", "sums", "--processes", "2", "--threads", "2"]
    with subprocess.Popen(
        [sys.executable, *command], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as worker:
        try:
            results = [add.delay(number, 1) for number in range(50)]
            assert [result.get(timeout=60) for result in results] == list(range(1, 51))
            pooled.conn.execute("update kirby.subscription set max_attempts = 1")
            with pytest.raises(kirby.TaskFailed, match="never"):
                add.delay(0, 13).get(timeout=60)
        finally:
            worker.terminate()
            said, _ = worker.communicate(timeout=30)

    assert worker.returncode == 0, said.decode()
    assert POOLED in said.decode()


# The server


def test_a_supervisor_works_and_leaves_nothing_behind(runs, supervise, bouncer, dsn, as_role):
    through = bouncer(size=1).through(dsn)
    supervisor = supervise(
        dsn=as_role(through, "kirby_server"), worker_dsn=as_role(through, "kirby_worker")
    )
    run_id = runs.start("import sys; print('hello', file=sys.stderr)")

    drive(supervisor, lambda: runs.get(run_id)["status"] == "succeeded", 60)
    drive(supervisor, lambda: runs.texts(run_id, "stderr") == ["hello"])
    supervisor.stop()
    assert left_behind(as_role(through, "kirby_server")) == CLEAN


def test_the_web_listens_to_nothing(bouncer, dsn, as_role):
    through = as_role(bouncer(size=1).through(dsn), "kirby_server")
    engine = database.engine(through)
    with TestClient(create_app(Settings(dsn=through), engine)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/login").status_code == 200
    engine.dispose()
    assert left_behind(through) == CLEAN


# The command line


@pytest.fixture
def pooled_kirby(kirby, bouncer, dsn, as_role, monkeypatch):
    """The command line, on a pool with one connection."""
    through = bouncer(size=1).through(as_role(dsn, "kirby_server"))
    monkeypatch.setenv("KIRBY_DSN", through)
    yield kirby
    assert left_behind(through) == CLEAN


def test_the_command_line(pooled_kirby, as_role, dsn):
    run = pooled_kirby
    for number in range(3):
        done = run("topic", "publish", "orders", json.dumps({"n": number}), "--env", "preprod")
        assert done.code == 0, done.err
    read = run("topic", "read", "orders", "--env", "preprod", "--json")
    listed = run("topic", "list", "--env", "preprod", "--json")

    assert [entry["value"]["n"] for entry in json.loads(read.out)] == [0, 1, 2]
    assert [entry["name"] for entry in json.loads(listed.out)] == ["orders"]
    assert run("subscription", "list", "--json").out.strip() == "[]"
    assert run("topic", "list", "--json").out.strip() == "[]"


def test_migrating_through_a_pooler_works(empty_dsn, bouncer, kirby):
    through = bouncer(size=1).through(empty_dsn)
    from kirby.server.schema import migrate

    migrate(through)
    migrate(through)

    assert left_behind(through) == CLEAN
