"""Fixtures on a real PostgreSQL: `db` for nearly all tests, `dsn` for those that need commits."""

import os
import signal
import threading

import fix_postgres
import psycopg
import pytest

pytest_plugins = (
    "fix_kirby", "fix_subscription", "fix_web", "fix_browser", "fix_packages", "fix_index",
    "fix_deploy",
)  # fmt: skip

# The settings of whoever runs the tests, and above all their database, are none of our business.
KEPT = {
    "KIRBY_TEST_DSN", "KIRBY_TEST_STRICT", "KIRBY_TEST_EXAMPLES", "KIRBY_TEST_WHEEL_MB",
    "KIRBY_PG_BINDIR",
}  # fmt: skip
for _name in [n for n in os.environ if n.startswith(("KIRBY_", "PG")) and n not in KEPT]:
    del os.environ[_name]


# A shell starts what it runs in its background with Ctrl-C ignored, and so would be all that tests
# start, and interrupt.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server():
    """A superuser's DSN of the server that this test process uses."""
    with fix_postgres.server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def databases(server):
    """Makes databases from a migrated template."""
    from kirby.server.schema import migrate

    databases = fix_postgres.Databases(server, migrate)
    databases.make_template()
    yield databases
    databases.drop_template()


@pytest.fixture
def dsn(databases):
    """A whole migrated database of its own, for tests that commit, notify or use processes."""
    dsn = databases.create()
    yield dsn
    databases.drop(dsn)


@pytest.fixture
def empty_dsn(databases):
    """A database of its own with nothing in it, for tests of migrations."""
    dsn = databases.create("template0")
    yield dsn
    databases.drop(dsn)


@pytest.fixture(scope="session")
def shared_dsn(databases):
    """The database in which the `db` fixture rolls back."""
    dsn = databases.create()
    yield dsn
    databases.drop(dsn)


@pytest.fixture
def db(shared_dsn):
    """A connection in autocommit, in a transaction that is rolled back. Use this by default."""
    with (
        psycopg.connect(shared_dsn, autocommit=True) as conn,
        conn.transaction(force_rollback=True),
    ):
        yield conn


@pytest.fixture
def as_role():
    """`as_role(dsn, "kirby_worker")`: the same database, logging in as that role."""
    return fix_postgres.as_role


@pytest.fixture
def until():
    """`until(predicate, timeout=20)`: wait for something without sleeping longer than needed."""
    return fix_postgres.until
