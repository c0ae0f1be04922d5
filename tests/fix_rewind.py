"""A subscription that is rewound: what it settled, and what of it came as a replay."""

import contextlib

import psycopg
import pytest
from fix_log import Log
from fix_subscription import CLOCK, Reader

from kirby.core import subscriptions
from kirby.server import database, environments, rewinds


class Rewinder(Reader):
    """A reader that remembers of each message whether it came as a replay."""

    def __init__(self, conn, dsn):
        super().__init__(conn)
        self.log = Log(dsn, conn)
        self.dsn = dsn
        self.came = []  # (position, rewind or None)

    def settle(self, batch, *failures, next=0, **written):
        failed = {failure.position for failure in failures}
        subscriptions.settle(self.conn, batch, failures=failures, next=next, **written)
        for number, position in enumerate(batch.positions):
            if position not in failed:
                self.came.append((position, flag(batch, number)))

    def drain(self, limit=100):
        """Settle all that can be had now; what came, and for which rewind."""
        self.came = []
        while batch := self.claim(limit):
            self.settle(batch)
        return self.came

    def plan(self, to, topic="orders", **how):
        with self.unit() as (conn, dev):
            return rewinds.plan(conn, dev, topic, to=to, **how)

    def rewind(self, to=1, *, reason="why", **how):
        with self.unit() as (conn, dev):
            made = rewinds.plan(conn, dev, "orders", to=to, **how)
            return rewinds.begin(conn, made, actor="test", reason=reason)

    def act(self, verb, id, **given):
        """Approve, pause, resume or abort a rewind."""
        with self.unit() as (conn, _):
            return getattr(rewinds, verb)(conn, id, actor="test", **given)

    def get(self, id):
        with self.unit() as (conn, dev):
            return rewinds.get(conn, dev, id)

    def end(self):
        """What the leader does every second."""
        return self.log.value("select kirby.end_rewinds()")

    def status(self, id):
        return self.log.value("select status from kirby.rewind where id = %s", id)

    def wrong(self):
        return self.log.wrong()

    def unit(self):
        return in_dev(self.dsn)


@contextlib.contextmanager
def in_dev(dsn):
    """A unit of work as the server has it, and environment dev."""
    served = database.engine(dsn, application="test", size=1)
    try:
        with database.unit(served) as conn:
            yield conn, environments.get(conn, "dev")
    finally:
        served.dispose()


def flag(batch, number):
    """The rewind for which a message of a batch is delivered again; None: it is not."""
    header = batch.headers and batch.headers[number]
    return header.get("replay") if header else None


@pytest.fixture(name="rewinder")
def rewinder_fixture(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(CLOCK)
        conn.execute(
            "insert into kirby.topic (environment_id, name, lanes)"
            " select id, 'orders', 1 from kirby.environment where name = 'dev'"
        )
        rewinder = Rewinder(conn, dsn)
        rewinder.subscribe()
        yield rewinder
