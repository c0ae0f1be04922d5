"""The order of the log: everybody reads the same, nothing is missing, whatever the writers do."""

import random
import threading

import psycopg
import pytest

from kirby.core.db import kirby_errors
from kirby.core.errors import WrongIsolation
from kirby.server.paths import MIGRATIONS

WRITERS = 6
READERS = 3
TRANSACTIONS = 60  # for each writer
HORIZON = (MIGRATIONS / "functions" / "horizon.sql").read_text()
SLEEP = "perform pg_sleep(random() * 0.004);"
ORDER = """
    select position from kirby.message
     where topic_id = (select id from kirby.topic where name = 'orders') order by position
"""


def with_delays(function):
    """The same function with a random pause after each of its first two statements."""
    for step in ("-- step 2", "-- step 3"):
        assert function.count(step) == 1
        function = function.replace(step, f"{SLEEP}\n  {step}")
    return function


def without_horizon(function):
    """A reader that trusts the sequence: what the horizon is there to prevent."""
    assert function.count("return least(v_high, v_low);") == 1
    return function.replace("return least(v_high, v_low);", "return v_high;")


def write(dsn, seed):
    """Transactions of one to four messages with pauses, nested savepoints and rollbacks."""
    chance = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(TRANSACTIONS):
            with conn.transaction():
                for _ in range(chance.randint(1, 4)):
                    with conn.transaction():
                        publish(conn, chance)
                        with conn.transaction():
                            publish(conn, chance)
                            if chance.random() < 0.3:
                                raise psycopg.Rollback()
                        if chance.random() < 0.2:
                            raise psycopg.Rollback()
                if chance.random() < 0.15:
                    raise psycopg.Rollback()


def publish(conn, chance):
    conn.execute("select kirby.publish('orders', '{}', key => %s)", [str(chance.randint(0, 9))])
    conn.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0.001, 0.01])])


def read(dsn, written, seen):
    """Follow the topic with a bare cursor until the writers are done and nothing is left."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        while True:
            last_look = written.is_set()
            after = seen[-1] if seen else 0
            page = conn.execute(
                "select position from kirby.read('orders', after => %s, max => 50)", [after]
            ).fetchall()
            seen += [position for (position,) in page]
            if last_look and not page:
                return


def race(dsn):
    """What each reader saw, and the final order."""
    seen = [[] for _ in range(READERS)]
    written = threading.Event()
    with psycopg.connect(dsn) as idle:
        idle.execute("select kirby.publish('unrelated', '{}')")  # and never commits
        writers = [threading.Thread(target=write, args=(dsn, seed)) for seed in range(WRITERS)]
        readers = [threading.Thread(target=read, args=(dsn, written, mine)) for mine in seen]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join()
        written.set()
        for thread in readers:
            thread.join()
        idle.rollback()
    with psycopg.connect(dsn) as conn:
        return seen, [position for (position,) in conn.execute(ORDER)]


@pytest.fixture
def lay(dsn):
    """Lay another body of kirby.horizon into this test's database."""

    def lay(function):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select kirby.publish('orders', '0')")
            conn.execute(function)

    return lay


def test_every_reader_sees_exactly_the_final_order(dsn, lay):
    lay(with_delays(HORIZON))

    seen, final = race(dsn)

    assert len(final) > WRITERS * TRANSACTIONS
    assert final[-1] - final[0] > len(final), "there were gaps: rollbacks and other topics"
    for mine in seen:
        assert mine == final


def test_without_the_horizon_readers_lose_messages(dsn, lay):
    lay(without_horizon(with_delays(HORIZON)))

    seen, final = race(dsn)

    assert any(mine != final for mine in seen)
    assert all(set(mine) <= set(final) for mine in seen)


GATE = 4711
WAIT_AT_GATE = f"perform pg_advisory_lock_shared({GATE}), pg_advisory_unlock_shared({GATE});"
AT_GATE = f"select exists (select from pg_locks where objid = {GATE} and not granted)"


def swapped(function):
    """Look at the announcements first and then at the sequence: the order that is not safe."""
    first, second, third = (function.index(f"  -- step {number}") for number in (1, 2, 3))
    high, low = function[first:second], function[second:third]
    early = "select last_value into v_high from kirby.position;\n"
    return (
        function[:first]
        + early
        + low.replace("step 2", "step 1")
        + high.replace("step 1", "step 2")
        + function[third:]
    )


def overtaken(dsn, until):
    """What a reader that waits at the gate sees when one writer is overtaken by another there."""
    found = []

    def follow():
        with psycopg.connect(dsn, autocommit=True) as reader:
            query = "select position from kirby.read('orders')"
            found.append([position for (position,) in reader.execute(query)])

    with (
        psycopg.connect(dsn, autocommit=True) as gate,
        psycopg.connect(dsn) as slow,
        psycopg.connect(dsn, autocommit=True) as fast,
    ):
        gate.execute("select pg_advisory_lock(%s)", [GATE])
        reader = threading.Thread(target=follow)
        reader.start()
        until(lambda: gate.execute(AT_GATE).fetchone()[0])
        [(early,)] = slow.execute("select kirby.publish('orders', '1')")
        [(late,)] = fast.execute("select kirby.publish('orders', '2')")
        gate.execute("select pg_advisory_unlock(%s)", [GATE])
        reader.join()
        slow.commit()
    assert early < late
    return found[0], early, late


@pytest.mark.parametrize("step", ["-- step 2", "-- step 3"])
def test_a_writer_that_comes_between_two_steps_is_not_skipped(dsn, lay, until, step):
    lay(HORIZON.replace(step, f"{WAIT_AT_GATE}\n  {step}"))

    seen, early, late = overtaken(dsn, until)

    assert late not in seen or early in seen


def test_with_the_steps_swapped_a_writer_is_skipped(dsn, lay, until):
    function = swapped(HORIZON)
    lay(function.replace("-- step 2", f"{WAIT_AT_GATE}\n  -- step 2"))

    seen, early, late = overtaken(dsn, until)

    assert late in seen
    assert early not in seen


def test_an_open_transaction_holds_back_only_its_own_topic(dsn):
    with psycopg.connect(dsn) as slow, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select kirby.publish('orders', '0')")
        slow.execute("select kirby.publish('orders', '1')")
        conn.execute("select kirby.publish('orders', '2'), kirby.publish('others', '3')")

        assert payloads(conn, "orders") == [0]
        assert payloads(conn, "others") == [3]

        slow.commit()
        assert payloads(conn, "orders") == [0, 1, 2]


def test_a_rolled_back_savepoint_takes_its_announcement_along(dsn):
    """And a later publish of the same transaction announces again."""
    with psycopg.connect(dsn) as slow, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select kirby.publish('orders', '0')")
        with slow.transaction(force_rollback=True):
            slow.execute("select kirby.publish('orders', '1')")
        conn.execute("select kirby.publish('orders', '2')")
        assert payloads(conn, "orders") == [0, 2]

        slow.execute("select kirby.publish('orders', '3')")
        conn.execute("select kirby.publish('orders', '4')")
        assert payloads(conn, "orders") == [0, 2]

        slow.commit()
        assert payloads(conn, "orders") == [0, 2, 3, 4]


def test_a_forged_setting_does_not_spare_the_announcement(dsn):
    with psycopg.connect(dsn) as forger, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select kirby.publish('orders', '0')")
        [(topic,)] = conn.execute("select id from kirby.topic where name = 'orders'")
        forger.execute("select set_config('kirby.announced', %s, false)", [f",{topic},"])
        forger.execute("select kirby.publish('orders', '1')")
        conn.execute("select kirby.publish('orders', '2')")

        assert payloads(conn, "orders") == [0]


def test_thousands_of_publishes_in_a_transaction_announce_once(dsn):
    with psycopg.connect(dsn) as conn:
        for number in range(200):
            conn.execute("select kirby.publish('orders', %s::text::jsonb)", [number])
        [(held,)] = conn.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        )

    assert held == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_another_isolation_level_is_refused(dsn, level):
    with psycopg.connect(dsn) as conn:
        conn.execute("select kirby.publish('orders', '0')")
        conn.commit()
        conn.execute(f"set transaction isolation level {level}")
        with pytest.raises(WrongIsolation, match=level), kirby_errors():
            conn.execute("select * from kirby.read('orders')")


@pytest.mark.parametrize("position", [2**31 - 3, 2**31 + 5, 2**33 - 2])
def test_bounds_are_rebuilt_over_31_bits(dsn, position):
    """An announcement keeps 31 bits; the horizon is right below, at and above the turn."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select setval('kirby.position', %s)", [position])
        with psycopg.connect(dsn) as slow:
            slow.execute("select kirby.publish('orders', '1')")
            [(topic,)] = slow.execute("select id from kirby.topic where name = 'orders'")
            conn.execute("select nextval('kirby.position') from generate_series(1, 20)")
            [(horizon,)] = conn.execute("select kirby.horizon(%s)", [topic])
            assert horizon == position
            slow.commit()
        [(horizon,)] = conn.execute("select kirby.horizon(%s)", [topic])
        assert horizon == position + 21


def payloads(conn, topic):
    return [row[0] for row in conn.execute("select payload from kirby.read(%s)", [topic])]
