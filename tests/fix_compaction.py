"""A state that is compacted, on a clock that can be moved, and what the leader does for it."""

import psycopg
import pytest
from fix_states import Past, moment
from fix_subscription import CLOCK

HOUR, DAY = 3600, 86400
COMPACT = "select removed, more from kirby.compact_state(%s, %s)"
PLANNED = """
    select versions, keys, days, first, last, "of" from kirby.plan_compaction(%s, %s::interval)
"""
VERIFIES = [
    "state_entries", "state_versions", "state_snapshots", "state_indexes", "flow", "parent_index",
]  # fmt: skip


class Compacted(Past):
    """A state, its policy, and every mutation that it ever had."""

    def policy(self, keep, reason="room"):
        self.ask("select kirby.set_compaction(%s, %s, 'ann', %s)", self.id, keep, reason)

    def count(self):
        """What the leader counts, without which nothing may go."""
        self.keep()
        while self.value("select kirby.count_messages()"):
            pass
        for _ in range(2):
            while self.value("select kirby.count_flow()"):
                pass

    def compact(self, most=5000):
        """All that is to be done by now; how many versions went."""
        self.count()
        gone = 0
        while True:
            [(removed, more)] = self.ask(COMPACT, self.id, most)
            gone += removed
            if not more:
                return gone

    def plan(self, keep):
        self.count()
        return self.ask(PLANNED, self.id, keep)[0]

    def there(self):
        rows = self.ask(
            "select position from kirby.state_mutation where state_id = %s order by 1", self.id
        )
        return [position for (position,) in rows]

    def gaps(self, position=None, seconds=None, keys=None):
        when = None if seconds is None else moment(seconds)
        rows = self.ask(
            "select key, before_version, after_version from kirby.gaps_at(%s, %s, %s, %s)",
            self.id, position, when, keys,
        )  # fmt: skip
        return {key: (before, after) for key, before, after in rows}

    def wrong(self):
        return [
            row for each in VERIFIES for row in self.ask(f"select * from kirby.verify_{each}()")
        ]

    def events(self, verb="state_compacted"):
        rows = self.ask(
            "select actor, reason, after from kirby.audit_event where verb = %s"
            " and object = %s order by position",
            verb, f"state/dev/{self.name}",
        )  # fmt: skip
        return rows

    def today(self, seconds):
        """The day that it is: so many seconds after the test began."""
        self.ask("update kirby.test_clock set shift = %s - clock_timestamp()", moment(seconds))


def midnight(number):
    """In seconds: the end of the day on which the test began, or so many days later."""
    return 12 * HOUR + number * DAY


@pytest.fixture(name="state")
def state_fixture(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(CLOCK)
        state = Compacted(dsn, conn)
        state.today(100 * DAY)
        yield state
