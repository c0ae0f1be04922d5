"""From a time to a position, and reading by time: exact, whatever the clock did."""

import datetime
import itertools
import random
import threading

import psycopg
import pytest
from fix_log import log_fixture  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

START = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
INSERT = """
    insert into kirby.message (position, topic_id, lane, payload, recorded_at)
    select m.position, m.topic_id, m.position %% 8, '0', m.at
      from unnest(%s::bigint[], %s::integer[], %s::timestamptz[]) as m (position, topic_id, at)
"""
TRUTH = """
    select min(position) from kirby.message
     where recorded_at >= %s and topic_id = coalesce(%s, topic_id)
"""
SLOW_NOW = """
    create function kirby.slow_now() returns timestamptz language plpgsql as $$
      begin
        perform pg_sleep(case when random() < 0.3 then random() * 0.02 else 0 end);
        return clock_timestamp();
      end $$
"""


def at(second):
    return START + datetime.timedelta(seconds=second)


# What was recorded, second by second: mostly onwards, sometimes set back or forward, for two topics
# and over several stretches of the index.
recorded = st.lists(
    st.tuples(
        st.integers(1, 1500),  # positions to skip
        st.sampled_from(["orders", "others"]),
        st.one_of(st.just(1), st.just(0), st.integers(-100, 100)),  # seconds since the last one
    ),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(recorded, st.lists(st.integers(-150, 200), min_size=1, max_size=6), st.integers(0, 40))
def test_it_is_the_first_position_that_was_recorded_then_or_later(db, rows, seconds, counted):
    """Of any history, counted wholly, in part, or not at all."""
    with db.transaction(force_rollback=True):
        ids = {name: db.execute("select kirby.open_topic(%s)", [name]).fetchone()[0]
               for name in ("orders", "others")}  # fmt: skip
        [position] = db.execute("select last_value from kirby.position").fetchone()
        second, history = 0, []
        for skip, topic, step in rows:
            position, second = position + skip, second + step
            history.append((position, ids[topic], at(second)))
        for part in (history[:counted], history[counted:]):
            if part:
                db.execute(INSERT, [list(column) for column in zip(*part, strict=True)])
                db.execute("select setval('kirby.position', %s)", [part[-1][0]])
            if part == history[:counted]:
                db.execute("select kirby.count_messages()")

        for second in seconds:
            for topic in ("orders", "others", None):
                [found] = db.execute(
                    "select kirby.position_at(%s, %s)", [at(second), topic]
                ).fetchone()
                truth = db.execute(TRUTH, [at(second), ids.get(topic)]).fetchone()[0]
                assert found == (truth or position + 1)

        low, high = min(seconds), max(seconds)
        read = db.execute(
            "select position from kirby.read('orders', max => 7, since => %s, until => %s)",
            [at(low), at(high)],
        ).fetchall()
        assert [p for (p,) in read] == [
            p for p, topic, when in history if topic == ids["orders"] and at(low) <= when < at(high)
        ][:7]


def test_without_any_message_it_is_the_next_position(log):
    log.value("select kirby.open_topic('orders')")
    after = log.value("select last_value + 1 from kirby.position")

    assert log.value("select kirby.position_at('2000-01-01', 'orders')") == after
    assert log.value("select kirby.position_at('2100-01-01')") == after


def test_it_is_not_beyond_the_horizon(log):
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        [[open_]] = writer.execute("select kirby.publish('orders', '2')").fetchall()
        log.publish("orders", 3)
        log.count()
        found = log.value("select kirby.position_at(now() + interval '1 hour', 'orders')")
        others = log.value("select kirby.position_at(now() + interval '1 hour')")

    assert found == others == open_


def test_what_was_committed_after_others_were_counted_is_found(log):
    """Stretches behind it are in the index already, its own does not know of it yet."""
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        [[late]] = writer.execute("select kirby.publish('orders', '2')").fetchall()
        log.value("select setval('kirby.position', 6000)")
        log.publish("others", 3)
        log.count()
    when = "select recorded_at from kirby.message where position = %s"

    assert log.value(f"select kirby.position_at(({when}), 'orders')", late) == late
    assert log.value(f"select kirby.position_at(({when}))", late) == late
    log.count()
    assert log.value(f"select kirby.position_at(({when}), 'orders')", late) == late


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [("null", "the moment is NULL"), ("now(), 'nothing'", "there is no topic nothing")],
)
def test_what_it_refuses(log, arguments, complaint):
    with pytest.raises(psycopg.Error, match=complaint):
        log.value(f"select kirby.position_at({arguments})")


def test_the_answer_stays_true_whatever_commits_later(log):
    """Writers pause between taking a position and recording it, and before they commit."""
    log.publish("orders", 0)
    log.ask(SLOW_NOW)
    log.ask("grant execute on function kirby.slow_now() to public")
    log.ask("alter table kirby.message alter recorded_at set default kirby.slow_now()")
    for name in log.partitions():
        log.ask(f"alter table kirby.{name} alter recorded_at set default kirby.slow_now()")
    written = threading.Event()
    answers = []

    def write(seed):
        chance = random.Random(seed)
        with psycopg.connect(log.dsn, autocommit=True) as conn:
            for _ in range(60):
                with conn.transaction():
                    for _ in range(chance.randint(1, 3)):
                        conn.execute("select kirby.publish('orders', '1', key => %s)",
                                     [str(chance.random())])  # fmt: skip
                    conn.execute("select pg_sleep(%s)", [chance.random() * 0.02])

    def ask():
        with psycopg.connect(log.dsn, autocommit=True) as conn:
            while not written.is_set():
                [(when,)] = conn.execute("select clock_timestamp() - random() * interval '0.1 s'")
                for topic in ("orders", None):
                    [(found,)] = conn.execute("select kirby.position_at(%s, %s)", [when, topic])
                    answers.append((when, found))
                conn.execute("select kirby.count_messages()")

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    asker = threading.Thread(target=ask)
    for thread in [*writers, asker]:
        thread.start()
    for thread in writers:
        thread.join()
    written.set()
    asker.join()

    rows = log.ask("select position, recorded_at from kirby.message order by position")
    swapped = sum(a[1] > b[1] for a, b in itertools.pairwise(rows))
    assert swapped > 5, "positions and times were in another order"
    assert len(answers) > 20
    for when, found in answers:
        assert not [p for p, recorded_at in rows if p < found and recorded_at >= when]


def test_the_index_shows_where_a_time_lies(log):
    """Not a stopwatch, but what it stands for: blocks that are read do not grow with the log."""
    log.old("orders", 60_000, "2 hours")
    log.old("orders", 20_000, "1 hour")
    log.count()
    log.ask("vacuum analyze kirby.message")

    def blocks(statement):
        [[[plan]]] = log.ask(f"explain (analyze, buffers, format json) {statement}")
        return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]

    log.ask("select kirby.position_at(now() - interval '90 minutes', 'orders')")
    everything = blocks("select count(payload) from kirby.message")

    assert blocks("select kirby.position_at(now() - interval '90 minutes', 'orders')") < 500
    assert (
        blocks("select kirby.read('orders', since => now() - interval '90 minutes', max => 10)")
        < 700
    )
    assert (
        blocks("select kirby.read('orders', until => now() - interval '3 hours', max => 10)") < 500
    )
    assert everything > 700
