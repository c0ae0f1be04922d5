"""What tests of the web are made of: an app on its own database, people, things to show."""

import functools
import json
import threading
import time
import types
from contextlib import contextmanager

import psycopg
import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from kirby.server import accounts, database
from kirby.server.settings import Settings
from kirby.server.web import create_app, serve

PASSWORD = "bidom-faket-lusan"
SUPERVISOR = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords():
    """What makes passwords safe makes tests slow."""
    accounts.HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
def server_dsn(dsn, as_role):
    """A database of its own, as the server logs in to it."""
    return as_role(dsn, "kirby_server")


@pytest.fixture
def engine(server_dsn):
    engine = database.engine(server_dsn)
    yield engine
    engine.dispose()


@pytest.fixture
def app(engine, server_dsn):
    """The app; the stream of notifications runs when a client is entered."""
    return create_app(Settings(dsn=server_dsn), engine)


@pytest.fixture
def people(engine):
    """`people("viewer")`: an account of that role and the secret of a session of it."""

    def make(role):
        with database.unit(engine) as conn:
            account_id = accounts.add(conn, f"a-{role}", PASSWORD, role, actor="test")
            return accounts.open_session(conn, accounts.Account(account_id, f"a-{role}", role))

    return make


@pytest.fixture
def client(app):
    """`client(secret)`: a browser with that session, or a stranger's without."""

    def make(secret=None):
        client = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
        if secret:
            client.cookies.set("kirby_session", secret)
        return client

    return make


@pytest.fixture
def admin(client, people):
    return client(people("admin"))


@pytest.fixture
def viewer(client, people):
    return client(people("viewer"))


@pytest.fixture
def stranger(client):
    return client()


@contextmanager
def connected(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def scalar(conn, query, *params):
    row = conn.execute(query, params).fetchone()
    return row[0] if row else None


def deploy(conn, name, kind="manual", *, schedules=(), replicas=1, environment=1):
    """A job with one release and one version, deployed in an environment; its deployment's id."""
    job = scalar(
        conn, "insert into kirby.job (name, kind) values (%s, %s) returning id", name, kind
    )
    release = scalar(
        conn,
        "insert into kirby.release"
        " (name, filename, source, sha256, requirements, lock_hash, python, created_by)"
        " values (%s, %s, 'print(\"hello\")', 'aa', '', 'bb', '3.11', 'test') returning id",
        name,
        f"{name}.py",
    )
    deployment = scalar(
        conn,
        "insert into kirby.deployment (job_id, environment_id, version)"
        " values (%s, %s, 1) returning id",
        job,
        environment,
    )
    conn.execute(
        "insert into kirby.deployment_version"
        " (deployment_id, version, release_id, schedules, replicas, variables, actor)"
        " values (%s, 1, %s, %s, %s, '{\"DAYS\": \"3\"}', 'test')",
        [deployment, release, list(schedules), replicas],
    )
    return deployment


def start(conn, deployment, *, replica=None):
    """A run that is under way on a supervisor; its id."""
    conn.execute("select kirby.register_supervisor(%s, 'host-1', '/srv', 7, 20)", [SUPERVISOR])
    run = scalar(
        conn,
        "select kirby.queue_run(%s, 'manual', 'test', p_replica => %s::smallint)",
        deployment,
        replica,
    )
    record(conn, run, "run_claimed", supervisor_id=SUPERVISOR)
    record(conn, run, "run_started", pid=99)
    return run


def record(conn, run, step, **data):
    conn.execute("select kirby.record_run(%s, %s, %s)", [run, step, json.dumps(data)])


def say(conn, run, *texts, stream="stdout", level="info"):
    """Append log lines, and wake who follows, as the supervisor does."""
    lines = [{"r": run, "s": stream, "l": level, "x": text, "t": 1767225600} for text in texts]
    conn.execute("select kirby.append_log_lines(%s, %s)", [SUPERVISOR, json.dumps(lines)])
    conn.execute("notify kirby_log")


def publish(conn, topic, payload, key=None):
    return scalar(conn, "select kirby.publish(%s, %s::jsonb, %s)", topic, json.dumps(payload), key)


def set_keys(conn, state, **values):
    changes = [{"k": key, "o": "set", "v": value} for key, value in values.items()]
    conn.execute(
        "select kirby.append_mutations(1::smallint, null, %s)", [json.dumps({state: changes})]
    )


@pytest.fixture
def house(dsn):
    """A database with something on every page."""
    with connected(dsn) as conn:
        manual = deploy(conn, "hello")
        nightly = deploy(conn, "nightly", "scheduled", schedules=["0 2 * * *"])
        conn.execute(
            "insert into kirby.tick (deployment_id, at, local)"
            " values (%s, now() + interval '1 hour', '2026-01-01 02:00')",
            [nightly],
        )
        daemon = deploy(conn, "mailer", "daemon", replicas=2)
        replica = start(conn, daemon, replica=0)
        failed = start(conn, manual)
        say(conn, failed, "first line", "<b>not bold</b>", "\x1b[31mred\x1b[0m and 東京")
        record(conn, failed, "run_failed", exit_code=3, reason="it ended with exit code 3")
        live = start(conn, manual)
        say(conn, live, "at work")
        position = publish(conn, "orders", {"amount": 12.5, "who": "<Ærø>"}, "A")
        conn.execute("select kirby.subscribe('orders', 'mailer')")
        set_keys(conn, "totals", EV={"flights": 1, "worst": {"minutes": 5}}, UA={"flights": 2})
        set_keys(conn, "totals", EV={"flights": 9, "worst": {"minutes": 5}})
        set_keys(conn, "rates", usd=1.08)
    return types.SimpleNamespace(
        failed=failed, live=live, replica=replica, position=position, manual=manual
    )


def count(dsn, table):
    """How many rows a table has."""
    with connected(dsn) as conn:
        return scalar(
            conn,
            psycopg.sql.SQL("select count(*) from {}").format(
                psycopg.sql.Identifier("kirby", table)
            ),
        )


@pytest.fixture
def served(app):
    """The address of the app behind a real server, stopped at the end."""
    listener = serve.listen("127.0.0.1", 0)
    ready = threading.Event()
    server = serve.Server(app, serve.address("127.0.0.1", listener), lambda _: ready.set())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(20)
    yield types.SimpleNamespace(url=server.url, stop=functools.partial(stop, server, thread))
    stop(server, thread)
    listener.close()


def stop(server, thread):
    """Stop a server as SIGTERM does; how long it took, in seconds."""
    began = time.monotonic()
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    return time.monotonic() - began
