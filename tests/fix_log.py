"""The log as its housekeeping sees it: messages of any age, counted by hand, a clock to move."""

import psycopg
import pytest
from fix_subscription import CLOCK

from kirby.core import subscriptions

RAW = """
    insert into kirby.message (position, topic_id, lane, key, payload, recorded_at)
    select nextval('kirby.position'), t.id, (n + %(lane)s) %% t.lanes, null, to_jsonb(n),
           clock_timestamp() - %(ago)s::interval
      from kirby.topic t, generate_series(1, %(count)s) n
     where t.name = %(topic)s
    returning position
"""


class Log:
    """A database of its own, as an administrator sees it."""

    def __init__(self, dsn, conn):
        self.dsn, self.conn = dsn, conn

    def ask(self, query, *params):
        cursor = self.conn.execute(query, params)
        return cursor.fetchall() if cursor.description else None

    def value(self, query, *params):
        [[value]] = self.ask(query, *params)
        return value

    def publish(self, topic, *values, key=None):
        return [
            self.value("select kirby.publish(%s, to_jsonb(%s::text), key => %s)", topic, v, key)
            for v in values
        ]

    def old(self, topic, count, ago, lane=0):
        """So many messages, recorded so long ago; their positions."""
        if not self.ask("select from kirby.topic where name = %s", topic):
            self.value("select kirby.open_topic(%s)", topic)
        given = {"topic": topic, "count": count, "ago": ago, "lane": lane}
        rows = self.conn.execute(RAW, given).fetchall()
        return [position for (position,) in rows]

    def topic_id(self, topic):
        return self.value("select id from kirby.topic where name = %s", topic)

    def there(self, topic):
        """The positions of the messages that are there."""
        rows = self.ask(
            "select m.position from kirby.message m join kirby.topic t on t.id = m.topic_id"
            " where t.name = %s order by 1",
            topic,
        )
        return [position for (position,) in rows]

    def count(self):
        while self.value("select kirby.count_messages()"):
            pass

    def counted(self, topic):
        return int(
            self.value(
                "select coalesce(sum(c.messages), 0) from kirby.topic_count c"
                " join kirby.topic t on t.id = c.topic_id where t.name = %s",
                topic,
            )
        )

    def keep(self, topic, span, even_unread=False):
        self.value(
            "select kirby.keep_topic(%s, %s::interval, %s, 'test')",
            self.topic_id(topic), span, even_unread,
        )  # fmt: skip

    def subscribe(self, topic, name="job", **options):
        return subscriptions.subscribe(self.conn, topic, name, **options)[0]

    def drain(self, subscription, limit=100):
        """Settle all that can be had now."""
        done = []
        while batch := subscriptions.claim(self.conn, subscription, limit):
            subscriptions.settle(self.conn, batch)
            done += batch.positions
        return done

    def lag(self, subscription):
        [(messages, _, exact)] = self.ask("select * from kirby.lag(%s)", subscription)
        return messages if exact else f"{messages}+"

    def later(self, interval):
        self.ask("update kirby.test_clock set shift = shift + %s::interval", interval)

    def jump(self, position):
        """The next position that is taken is the one after it."""
        self.value("select setval('kirby.position', %s)", position)
        self.value("select kirby.open_partitions()")

    def partitions(self, log="message"):
        rows = self.ask("select name from kirby.partitions(%s) where first is not null", log)
        return [name for (name,) in rows]

    def plan(self):
        return self.ask("select log, partition, topic_id, upto from kirby.plan_retention()")

    def retain(self):
        """Count, then do all that retention has to do now; what it did."""
        self.count()
        plan = self.plan()
        for log, partition, topic_id, upto in plan:
            if topic_id is not None:
                while self.value("select kirby.remove_messages(%s, %s, 100)", topic_id, upto):
                    pass
            elif partition is not None:
                self.value("select kirby.drop_partition(%s, %s)", log, partition)
            else:
                while self.value("select kirby.remove_rows(%s, 100)", log):
                    pass
        return plan

    def wrong(self):
        """What `kirby db verify` would name."""
        from kirby.server import verify

        with psycopg.connect(self.dsn) as conn:
            conn.execute(verify.SNAPSHOT)
            return [
                (table, *row)
                for table, query in verify.PROJECTIONS.items()
                for row in conn.execute(query).fetchall()
            ]


def actions(plan):
    """What retention has to do, without the numbers."""
    return [
        (name, "drop" if partition and not topic else "delete")
        for name, partition, topic, _ in plan
        if name != "log_line"
    ]


def full_partition(log, *ages):
    """Partitions with ten messages of topic orders each, recorded so long ago; the last is open."""
    for number, ago in enumerate(ages):
        if number:
            log.jump(number * 10_000_000)
        log.old("orders", 10, ago)
    log.count()


@pytest.fixture(name="log")
def log_fixture(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(CLOCK)
        yield Log(dsn, conn)
