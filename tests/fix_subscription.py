"""A subscription as the database sees it: claimed and settled by hand, with a clock to move."""

import psycopg
import pytest

from kirby.core import db, subscriptions, topics
from kirby.sdk import work

CLOCK = """
    create table kirby.test_clock (shift interval not null);
    insert into kirby.test_clock values ('0');
    create or replace function kirby.now() returns timestamptz language sql volatile
      as 'select clock_timestamp() + shift from kirby.test_clock';
    grant select on kirby.test_clock to public;
"""
DUE = "select position, reason, parked_at is not null from kirby.due order by position"


class Reader:
    """A subscription of a topic with one lane, and a clock that can be moved."""

    def __init__(self, conn):
        self.conn = conn
        self.done = []

    def write(self, *items, topic="orders"):
        """Messages as the SDK makes them (kirby.sdk.work.message); their positions."""
        return topics.write(self.conn, work.document({topic: list(items)}), "{}")[0]

    def publish(self, *keys):
        """Messages whose value is their number, counted from the first."""
        return [
            db.scalar(self.conn, "select kirby.publish('orders', '0', key => %s)", [key])
            for key in keys
        ]

    def subscribe(self, **options):
        self.id, _ = subscriptions.subscribe(self.conn, "orders", "job", **options)

    def claim(self, limit=100):
        return subscriptions.claim(self.conn, self.id, limit)

    def settle(self, batch, *failures, next=0):
        failed = {failure.position for failure in failures}
        settled = subscriptions.settle(self.conn, batch, failures=failures, next=next)
        self.done += [position for position in batch.positions if position not in failed]
        return settled.next

    def drain(self):
        """Settle all that can be had now; in the order in which it was done."""
        self.done = []
        while batch := self.claim():
            self.settle(batch)
        return self.done

    def later(self, interval="1 hour"):
        self.conn.execute("update kirby.test_clock set shift = shift + %s::interval", [interval])

    def die(self):
        """The holder of every claim goes away without a word; the leases end."""
        self.later("1 minute")

    def due(self):
        return self.conn.execute(DUE).fetchall()


@pytest.fixture
def reader(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(CLOCK)
        conn.execute(
            "insert into kirby.topic (environment_id, name, lanes)"
            " select id, 'orders', 1 from kirby.environment where name = 'dev'"
        )
        reader = Reader(conn)
        reader.subscribe()
        yield reader
