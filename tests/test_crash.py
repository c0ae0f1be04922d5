"""PostgreSQL itself is killed, and comes back."""

import os
import signal

import pytest

from kirby.core import db, subscriptions
from kirby.core.errors import Fenced
from kirby.server.postgres import Postgres
from kirby.server.schema import migrate


@pytest.fixture
def postgres(tmp_path):
    """A durable server whose background writer of the log is slow, as it may be under load."""
    postgres = Postgres(tmp_path / "pg", settings={"wal_writer_delay": "10s", "autovacuum": "off"})
    postgres.start()
    yield postgres
    postgres.stop()


def crash(postgres):
    """As a power cut: nothing that was not flushed is there any more."""
    os.kill(postgres.pid, signal.SIGQUIT)
    postgres._child.wait()
    postgres.start()


def publish(conn, key):
    conn.execute("select kirby.publish('orders', '1', key => %s)", [key])


def test_a_claim_that_a_crash_undid_is_not_taken_for_another(postgres):
    """Claims are not flushed, so neither are their numbers: the next one may get the same."""
    dsn = postgres.dsn()
    migrate(dsn)
    with db.connect(dsn) as conn:
        reader, _ = subscriptions.subscribe(conn, "orders", "job")
        publish(conn, "a")
        subscriptions.settle(conn, subscriptions.claim(conn, reader, 10))
        publish(conn, "a")
        conn.execute("checkpoint")
        lost = subscriptions.claim(conn, reader, 10)
        assert lost.keys == ["a"]
        crash(postgres)

    with db.connect(dsn) as conn:
        publish(conn, "b")
        held = [subscriptions.claim(conn, reader, 10), subscriptions.claim(conn, reader, 10)]
        assert sorted(key for batch in held for key in batch.keys) == ["a", "b"]
        with pytest.raises(Fenced):
            subscriptions.settle(conn, lost)
        for batch in held:
            subscriptions.settle(conn, batch)
