"""A state as the database keeps it: mutations of any age, counted and written down by hand."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

BEGAN = datetime(2027, 3, 1, 12, tzinfo=UTC)
MUTATE = """
    insert into kirby.state_mutation
           (position, state_id, key, version, op, value, run_id, parents, headers, recorded_at)
    select nextval('kirby.position'), %(state_id)s, %(key)s,
           coalesce((select e.version from kirby.state_entry e
                      where e.state_id = %(state_id)s and e.key = %(key)s), 0) + 1,
           %(op)s, %(value)s, null, %(parents)s, %(headers)s, %(at)s
    returning position
"""


def moment(seconds):
    """A moment of the test: so many seconds after it began."""
    return BEGAN + timedelta(seconds=seconds)


class Past:
    """A state of environment dev and, in `log`, every mutation that it ever had."""

    def __init__(self, dsn, conn, name="sums"):
        self.dsn, self.conn, self.name = dsn, conn, name
        self.id = self.value("select kirby.state_id(1::smallint, %s)", name)
        self.log = []  # (position, key, version, op, value, seconds)

    def ask(self, query, *params):
        cursor = self.conn.execute(query, params)
        return cursor.fetchall() if cursor.description else None

    def value(self, query, *params):
        [[value]] = self.ask(query, *params)
        return value

    def mutate(self, key, value=..., at=0, parents=None, headers=None):
        """One version more, recorded at that second; without a value its deletion."""
        given = {
            "state_id": self.id, "key": key, "op": "delete" if value is ... else "set",
            "value": None if value is ... else Jsonb(value), "parents": parents,
            "headers": None if headers is None else Jsonb(headers), "at": moment(at),
        }  # fmt: skip
        [[position]] = self.conn.execute(MUTATE, given).fetchall()
        version = 1 + sum(known == key for _, known, *_ in self.log)
        self.log.append((position, key, version, given["op"], None if value is ... else value, at))
        return position

    def keep(self):
        """What the leader does."""
        while self.value("select kirby.keep_states()"):
            pass

    def snapshot(self):
        self.keep()
        if self.ask(
            "select 1 from kirby.state_count where state_id = %s", self.id
        ) and not self.ask(
            "select 1 from kirby.state_snapshot s, kirby.mutations_counted c"
            " where s.state_id = %s and s.position = c.position",
            self.id,
        ):
            self.value("select kirby.take_snapshot(%s)", self.id)

    def was(self, position=None, seconds=None):
        """What it was, out of all mutations: {key: (version, value)}."""
        found = {}
        for at, key, version, op, value, recorded in self.log:
            if (position is None or at <= position) and (seconds is None or recorded <= seconds):
                found[key] = (version, value) if op == "set" else None
        return {key: found[key] for key in sorted(found) if found[key] is not None}

    def at(self, position=None, seconds=None, keys=None, prefix="", after=None, limit=None):
        """The same from the database."""
        rows = self.ask(
            "select key, version, value from kirby.entries_at(%s, %s, %s, %s, %s, %s, %s)",
            self.id, position, None if seconds is None else moment(seconds),
            keys, prefix, after, limit,
        )  # fmt: skip
        return {key: (version, value) for key, version, value in rows}


@pytest.fixture(name="past")
def past_fixture(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Past(dsn, conn)
