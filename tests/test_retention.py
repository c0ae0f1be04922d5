"""Retention: what is past its policy goes, and nothing else does, whoever asks."""

import itertools
import threading

import psycopg
import pytest
from fix_log import log_fixture  # noqa: F401
from psycopg import errors

from kirby.core import subscriptions
from kirby.core.subscriptions import Failure

REMOVED = "select gone_to, gone_at from kirby.topic_retention"


def actions(plan):
    """What retention has to do, without the numbers."""
    return [
        (name, "drop" if partition and not topic else "delete")
        for name, partition, topic, _ in plan
        if name != "log_line"
    ]


# What may go


def test_what_is_older_than_it_is_kept_goes(log):
    log.old("orders", 30, "3 days")
    young = log.old("orders", 20, "1 hour")
    log.keep("orders", "2 days")

    log.retain()

    assert log.there("orders") == young
    assert log.wrong() == []
    [(gone_to, gone_at)] = log.ask(REMOVED)
    assert gone_to < young[0]
    assert log.value("select %s < now() - interval '2 days'", gone_at)
    assert log.ask("select * from kirby.earliest(%s)", log.topic_id("orders")) == [
        (gone_to + 1, gone_at)
    ]


def test_without_a_policy_everything_stays(log):
    kept = log.old("orders", 10, "3 years")
    log.publish("others", 1)

    assert actions(log.retain()) == []
    assert log.there("orders") == kept


def test_for_ever_again(log):
    kept = log.old("orders", 10, "3 days")
    log.keep("orders", "1 day")
    log.keep("orders", None)

    assert actions(log.retain()) == []
    assert log.there("orders") == kept


def test_what_is_not_counted_yet_stays(log):
    log.old("orders", 10, "3 days")
    log.keep("orders", "1 day")

    assert log.value("select kirby.expired_to(%s)", log.topic_id("orders")) == 0
    assert log.value("select kirby.remove_messages(%s)", log.topic_id("orders")) == 0


def test_nothing_goes_behind_an_open_writer(log):
    first = log.old("orders", 10, "3 days")
    log.keep("orders", "1 day")
    log.count()
    with psycopg.connect(log.dsn) as writer:
        [[own]] = writer.execute("select kirby.publish('orders', 'null')").fetchall()
        behind = log.old("orders", 10, "3 days")
        log.retain()
        assert log.there("orders") == behind
        assert first[-1] < own < behind[0]
    log.retain()
    assert log.there("orders") == [own, *behind]
    log.later("2 days")
    log.retain()
    assert log.there("orders") == []


def test_a_younger_message_before_older_ones_keeps_them(log):
    """In the order of positions, so that what is left never has a hole."""
    log.old("orders", 5, "3 days")
    young = log.old("orders", 1, "1 hour")
    behind = log.old("orders", 5, "3 days")
    log.keep("orders", "2 days")

    log.retain()

    assert log.there("orders") == young + behind


def test_pieces_go_in_the_order_of_positions(log):
    positions = log.old("orders", 100, "3 days")
    log.keep("orders", "1 day")
    log.count()

    for left in (90, 80):
        log.value("select kirby.remove_messages(%s, p_limit => 10)", log.topic_id("orders"))
        assert log.there("orders") == positions[-left:]
        assert log.wrong() == []


# What is unread


def test_what_a_subscription_has_not_read_stays(log):
    positions = log.old("orders", 10, "3 days")
    job = log.subscribe("orders")
    other = log.subscribe("orders", "other")
    log.keep("orders", "1 day")

    log.drain(other)
    log.retain()
    assert log.there("orders") == positions

    batch = subscriptions.claim(log.conn, job, 100)
    log.retain()
    assert log.there("orders")[-1] == positions[-1]
    assert batch.positions[0] in log.there("orders")

    subscriptions.settle(log.conn, batch)
    log.drain(job)
    log.retain()
    assert log.there("orders") == []
    assert log.wrong() == []


@pytest.mark.parametrize("action", ["park", "retry"])
def test_what_is_to_be_delivered_again_stays(log, action):
    log.old("orders", 3, "3 days")
    job = log.subscribe("orders")
    batch = subscriptions.claim(log.conn, job, 100)
    subscriptions.settle(log.conn, batch, failures=[Failure(batch.positions[0], action, "bad")])
    rest = [each for each in log.there("orders") if each >= batch.positions[0]]
    log.drain(job)
    log.keep("orders", "1 day")

    log.retain()

    assert log.there("orders") == rest
    blocked = "select blocked_by, blocked_reason from kirby.retention_of(%s)"
    log.keep("orders", "1 day")
    expected = "parked" if action == "park" else "to be retried"
    assert log.ask(blocked, log.topic_id("orders")) == [("job", expected)]


def test_a_delayed_message_stays_until_it_is_done(log):
    job = log.subscribe("orders")
    log.value("select kirby.publish('orders', '1', deliver_at => now() + interval '9 days')")
    log.drain(job)
    log.keep("orders", "1 day")
    log.later("5 days")
    log.retain()
    assert len(log.there("orders")) == 1

    log.later("5 days")
    assert len(log.drain(job)) == 1
    log.retain()
    assert log.there("orders") == []


def test_unread_messages_go_if_they_are_told_to(log):
    log.old("orders", 10, "3 days")
    job = log.subscribe("orders")
    batch = subscriptions.claim(log.conn, job, 100)
    subscriptions.settle(log.conn, batch, failures=[Failure(batch.positions[0], "park", "bad")])
    young = log.old("orders", 4, "1 hour")
    log.keep("orders", "1 day", even_unread=True)

    log.retain()

    assert log.there("orders") == young
    assert log.ask("select * from kirby.due") == []
    assert log.lag(job) == 4
    assert log.wrong() == []
    assert sorted(log.drain(job)) == young
    assert log.lag(job) == 0


def test_what_waits_behind_a_removed_message_goes_on(log):
    job = log.subscribe("orders", on_failure="block")
    first, second = log.publish("orders", 1, 2, key="a")
    batch = subscriptions.claim(log.conn, job, 1)
    subscriptions.settle(log.conn, batch, failures=[Failure(first, "park", "bad")])
    assert log.drain(job) == []
    log.keep("orders", "1 day", even_unread=True)
    log.later("3 days")
    log.count()
    topic = log.topic_id("orders")

    assert log.value("select kirby.remove_messages(%s, %s)", topic, first) == 1

    assert log.wrong() == []
    assert log.drain(job) == [second]


def test_what_is_in_hands_and_removed_is_settled_all_the_same(log):
    log.old("orders", 10, "3 days")
    job = log.subscribe("orders")
    batch = subscriptions.claim(log.conn, job, 100)
    log.keep("orders", "1 day", even_unread=True)
    log.retain()

    subscriptions.settle(log.conn, batch)

    assert log.ask("select * from kirby.claim") == []
    assert log.lag(job) == 0
    assert log.wrong() == []


def test_a_new_subscription_begins_behind_what_is_gone(log):
    log.old("orders", 10, "3 days")
    young = log.old("orders", 5, "1 hour")
    log.keep("orders", "1 day")
    log.retain()

    job = log.subscribe("orders")

    assert log.lag(job) == 5
    assert log.wrong() == []
    assert sorted(log.drain(job)) == young
    topic = log.topic_id("orders")
    assert log.value("select kirby.rank(%s, 0::smallint, 1)", topic) is None


def test_subscribing_and_removing_at_the_same_moment(log):
    """Every subscription begins behind what is gone, with the right count, whoever is first."""
    log.old("orders", 400, "3 days")
    log.keep("orders", "1 day", even_unread=True)
    log.count()
    topic = log.topic_id("orders")

    def remove():
        with psycopg.connect(log.dsn, autocommit=True) as conn:
            left = 40
            while left:
                try:
                    conn.execute("select kirby.remove_messages(%s, p_limit => 10)", [topic])
                    left -= 1
                except errors.LockNotAvailable:
                    pass

    remover = threading.Thread(target=remove)
    remover.start()
    number = 0
    while remover.is_alive() or number < 10:
        with log.conn.transaction():
            number += 1
            job = log.subscribe("orders", f"job-{number}")
            log.ask("select pg_sleep(0.003)")
        assert log.lag(job) <= 400
    remover.join()

    assert log.there("orders") == []
    assert log.wrong() == []


# Partitions


def full_partition(log, *ages):
    """Partitions with ten messages of topic orders each, recorded so long ago; the last is open."""
    for number, ago in enumerate(ages):
        if number:
            log.jump(number * 10_000_000)
        log.old("orders", 10, ago)
    log.count()


def test_a_partition_is_dropped_when_all_of_it_is_past_its_policy(log):
    full_partition(log, "30 days", "20 days", "1 day")
    log.keep("orders", "10 days")

    assert actions(log.retain()) == [("message", "drop"), ("message", "drop")]

    assert log.partitions()[0] == "message_2"
    assert len(log.there("orders")) == 10
    assert log.wrong() == []
    assert log.ask(
        "select object, before ->> 'partition', before -> 'rows' from kirby.audit_event"
        " where verb = 'partition_dropped' order by position"
    ) == [("log/message", "message_0", 10), ("log/message", "message_1", 10)]
    job = log.subscribe("orders")
    assert log.lag(job) == 10
    log.publish("orders", 1)
    log.count()
    assert log.counted("orders") == 31
    assert log.wrong() == []


def test_a_partition_with_a_longer_lived_topic_loses_only_what_is_expired(log):
    kept = log.old("letters", 5, "30 days")
    full_partition(log, "30 days", "1 day")
    log.keep("orders", "10 days")

    assert actions(log.retain()) == [("message", "delete")]

    assert "message_0" in log.partitions()
    assert log.there("letters") == kept
    assert len(log.there("orders")) == 10
    assert log.wrong() == []
    assert actions(log.plan()) == []

    log.keep("letters", "20 days")
    assert actions(log.retain()) == [("message", "drop")]
    assert log.wrong() == []


def test_what_will_soon_go_as_a_whole_is_not_deleted_row_by_row(log):
    log.old("letters", 5, "101 hours")
    full_partition(log, "101 hours", "1 hour")
    log.keep("orders", "100 hours")
    log.keep("letters", "105 hours")
    assert actions(log.plan()) == [], "a tenth of 100 hours is waited for"

    log.keep("letters", "300 hours")
    assert actions(log.plan()) == [("message", "delete")]


def test_a_partition_is_not_dropped_before_what_lies_before_it(log):
    """The rows of orders in the first partition have to go first."""
    log.old("letters", 5, "30 days")
    full_partition(log, "30 days", "30 days", "1 day")
    log.keep("orders", "10 days")

    assert actions(log.plan()) == [("message", "delete"), ("message", "delete")]
    with pytest.raises(psycopg.Error, match="message_1 holds messages that are kept"):
        log.value("select kirby.drop_partition('message', 'message_1')")
    log.retain()
    assert actions(log.plan()) == [("message", "drop")]
    log.retain()
    assert log.wrong() == []


def test_an_unread_message_keeps_its_partition(log):
    full_partition(log, "30 days", "1 day")
    log.subscribe("orders")
    log.keep("orders", "10 days")

    assert actions(log.retain()) == []
    with pytest.raises(psycopg.Error, match="message_0 holds messages that are kept"):
        log.value("select kirby.drop_partition('message', 'message_0')")


def test_an_open_writer_keeps_the_partition_it_may_write_to(log):
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute("select kirby.publish('others', '1')")
        log.jump(10_000_000)
        log.old("orders", 10, "1 hour")
        log.keep("orders", "10 days")
        log.later("30 days")
        log.count()
        assert ("message", "drop") not in actions(log.plan())
        assert not log.value("select kirby.drop_partition('message', 'message_0')")


@pytest.mark.parametrize("name", ["message_default", "message_77", "message", "topic"])
def test_only_partitions_can_be_dropped(log, name):
    with pytest.raises(psycopg.Error, match=f"log message has no partition {name}"):
        log.value("select kirby.drop_partition('message', %s)", name)


def test_nobody_queues_behind_a_drop(log):
    """A long query holds the log; the drop gives up at once, and publishers go on."""
    full_partition(log, "30 days", "1 day")
    log.keep("orders", "10 days")
    with psycopg.connect(log.dsn) as reader:
        reader.execute("select count(*) from kirby.message")
        with pytest.raises(errors.LockNotAvailable):
            log.value("select kirby.drop_partition('message', 'message_0')")
        log.ask("set lock_timeout = '1s'")
        log.publish("orders", 1)
    assert log.value("select kirby.drop_partition('message', 'message_0')")
    assert log.wrong() == []


# Append-only all the same


@pytest.mark.parametrize("role", [None, "kirby_owner"])
@pytest.mark.parametrize("table", ["message", "message_0"])
def test_nobody_deletes_by_saying_so(log, role, table):
    log.old("orders", 10, "3 days")
    log.keep("orders", "1 day")
    log.count()
    if role:
        log.ask(f"set role {role}")

    for setting in ("", "message", "on"):
        log.value("select set_config('kirby.removing', %s, false)", setting)
        with pytest.raises(psycopg.Error, match="is append-only"):
            log.ask(f"delete from kirby.{table}")
    for change in ("update kirby.{} set payload = 'null'", "truncate kirby.{}"):
        with pytest.raises(psycopg.Error, match="is append-only"):
            log.ask(change.format(table))


def test_the_server_may_only_ask_for_retention(log, as_role):
    kept = log.old("orders", 10, "1 day")
    log.keep("orders", "2 days")
    log.count()
    with psycopg.connect(as_role(log.dsn, "kirby_server"), autocommit=True) as server:
        removed = server.execute("select kirby.remove_messages(1, 9223372036854775807)").fetchone()
        with pytest.raises(errors.InsufficientPrivilege):
            server.execute("delete from kirby.message")
        with pytest.raises(errors.InsufficientPrivilege):
            server.execute("drop table kirby.message_0")

    assert removed == (0,)
    assert log.there("orders") == kept


@pytest.mark.parametrize("name", ["job_event", "log_line", "audit_event", "secret_access"])
def test_other_logs_lose_only_what_their_policy_lets_go(log, name):
    time = "at" if name == "log_line" else "recorded_at"
    columns = {
        "job_event": "type, actor", "audit_event": "actor, verb, object",
        "secret_access": "secret_id, actor, verb, allowed",
        "log_line": "run_id, stream, level, text",
    }[name]  # fmt: skip
    values = {
        "job_event": "'x', 'y'", "audit_event": "'x', 'y', 'z'",
        "secret_access": "1, 'x', 'y', true", "log_line": "n %% 3, 'stdout', 'info', 'x'",
    }[name]  # fmt: skip
    log.ask(
        f"insert into kirby.{name} (position, {time}, {columns})"
        f" select nextval('kirby.position'), now() - n * interval '1 day', {values}"
        f" from generate_series(1, 30) n"
    )
    log.value("select kirby.keep_log(%s, '10 days', 'test')", name)
    rows = f"select count(*) from kirby.{name} where {time} < now() - interval '10 days'"
    old = log.value(rows)

    log.value(f"select set_config('kirby.removing', '{name}', false)")
    with pytest.raises(psycopg.Error, match="its policy keeps position"):
        log.ask(f"delete from kirby.{name}")
    log.retain()

    assert old >= 20
    assert log.value(rows) == 0
    assert log.value(f"select count(*) from kirby.{name}") >= 9


def test_a_partition_of_lines_is_dropped(log):
    line = (
        "insert into kirby.log_line (position, run_id, stream, level, text, at)"
        " select nextval('kirby.position'), 1, 'stdout', 'info', 'x', now() - %s::interval"
    )
    log.ask(line, "100 days")
    log.jump(10_000_000)
    log.ask(line, "1 day")
    log.ask("insert into kirby.pace (at, position) select now(), last_value from kirby.position")

    plan = log.retain()

    assert ("log_line", "log_line_0", None, None) in plan
    assert log.partitions("log_line")[0] == "log_line_1"
    assert log.partitions("job_event")[0] == "job_event_0", "events are kept for ever"
    assert log.value("select count(*) from kirby.log_line") == 1


def test_events_of_people_and_secrets_are_kept_for_ever_unless_somebody_says_otherwise(log):
    assert log.ask("select log, keep::text from kirby.log_retention order by log") == [
        ("audit_event", None), ("job_event", None),
        ("log_line", "90 days"), ("secret_access", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("'state_mutation', '9 days'", "is the history of the states: it is kept for ever"),
        ("'message', '9 days'", "messages are kept by topic"),
        ("'log_line', '1 hour'", "cannot be kept for less than a day"),
        ("'topic', '9 days'", "there is no log topic"),
    ],
)
def test_policies_of_logs_that_are_refused(log, arguments, complaint):
    with pytest.raises(psycopg.Error, match=complaint):
        log.value(f"select kirby.keep_log({arguments}, 'test')")


def test_every_change_of_a_policy_is_audited_once(log):
    log.publish("orders", 1)
    log.keep("orders", "10 days")
    log.keep("orders", "10 days")
    log.keep("orders", "10 days", even_unread=True)
    log.value("select kirby.keep_log('audit_event', '900 days', 'me')")

    assert log.ask(
        "select actor, object, before, after from kirby.audit_event"
        " where verb = 'retention_set' order by position"
    ) == [
        ("test", "topic/dev/orders", {"keep": None, "even_unread": False},
         {"keep": "10 days", "even_unread": False}),
        ("test", "topic/dev/orders", {"keep": "10 days", "even_unread": False},
         {"keep": "10 days", "even_unread": True}),
        ("me", "log/audit_event", {"keep": None}, {"keep": "900 days"}),
    ]  # fmt: skip


# What belongs to removed messages


def test_producer_ids_stay_for_seven_days(log):
    log.value("select kirby.publish('orders', '1', id => 'a')")
    log.keep("orders", "1 day")
    log.later("3 days")
    log.retain()
    assert log.there("orders") == []
    log.value("select kirby.sweep_produced()")
    assert log.value("select kirby.publish('orders', '1', id => 'a')") is not None
    assert log.there("orders") == [], "it is the same message still"

    log.later("5 days")
    log.publish("others", 1)
    log.count()
    assert log.value("select kirby.sweep_produced()") == 1
    assert log.ask("select * from kirby.produced") == []
    assert log.wrong() == []


def test_ids_are_swept_some_blocks_at_a_time(log):
    items = ", ".join(f'{{"v": 1, "i": "{"x" * 150}{n}"}}' for n in range(200))
    log.value("select kirby.write(%s::jsonb)", f'{{"orders": {{"m": [{items}]}}}}')
    log.keep("orders", "1 day")
    log.later("30 days")
    log.retain()
    blocks = log.value("select pg_relation_size('kirby.produced') / 8192")

    swept = [log.value("select kirby.sweep_produced(1)") for _ in range(blocks)]

    assert blocks > 2
    assert sum(swept) == 200
    assert max(swept) < 200


def test_results_and_notes_of_what_was_taken_back_go_with_their_messages(log):
    [task] = log.publish("task.sum", 1)
    log.value("select kirby.publish('task.sum', '1', id => 'a')")
    log.value("select kirby.retract('task.sum', 'a')")
    log.value(
        "select kirby.write(%s::jsonb)",
        f'{{"task.sum.results": {{"m": [{{"v": 1, "r": {task}}}]}}}}',
    )
    log.keep("task.sum", "1 day")
    log.keep("task.sum.results", "1 day")
    assert log.value("select kirby.forget_removed()") == 0

    log.later("3 days")
    log.retain()

    assert log.value("select kirby.forget_removed()") == 2
    assert log.ask("select * from kirby.result") == []
    assert log.ask("select * from kirby.retracted") == []
    assert log.wrong() == []


# How much room there is


def test_partitions_get_wider_so_that_there_are_never_many(log):
    def partitions():
        return log.ask(
            "select first, last from kirby.partitions('message') where first is not null"
        )

    counts = {}
    for goal in (300, 1_000, 5_000):
        while partitions()[-1][1] < goal * 10**6:
            log.jump(partitions()[-1][1])
        counts[goal] = len(partitions())

    assert counts[300] <= 34
    assert counts[1_000] <= 50
    assert counts[5_000] <= 62
    for before, after in itertools.pairwise(partitions()):
        assert before[1] + 1 == after[0], "they leave no gap"


def test_rows_of_the_default_partition_get_their_own(log):
    log.publish("orders", *range(5))
    log.value("select setval('kirby.position', 95000000)")
    late = log.publish("orders", *range(5))
    log.value("select kirby.write(p_mutations => %s::jsonb)",
              '{"sums": [{"k": "a", "o": "set", "v": 1}]}')  # fmt: skip
    overflowed = log.value("select count(*) from kirby.message_default")

    log.value("select kirby.open_partitions()")

    assert overflowed == 5
    assert log.value("select count(*) from kirby.message_default") == 0
    assert log.value("select to_regclass('kirby.message_overflow')") is None
    assert log.value("select count(*) from kirby.message_9") == 5
    assert log.value("select count(*) from kirby.state_mutation_9") == 1
    assert log.there("orders")[-5:] == late
    with pytest.raises(psycopg.Error, match="message_9 is append-only"):
        log.ask("delete from kirby.message_9")
    with pytest.raises(psycopg.Error, match="message_default is append-only"):
        log.ask("delete from kirby.message_default")
    log.count()
    assert log.wrong() == []
    assert log.value("select kirby.open_partitions()") == 0


# By itself, and by hand


def test_a_supervisor_keeps_house(log, as_role, until):
    from kirby.server.supervisor.housekeeping import Housekeeper

    log.ask("drop table kirby.log_line_2")
    full_partition(log, "30 days", "1 day")
    log.old("letters", 10_000, "30 days")
    log.keep("orders", "10 days")
    log.keep("letters", "1 day")
    leads = []
    housekeeper = Housekeeper(as_role(log.dsn, "kirby_server"), lambda: bool(leads))
    housekeeper.start()
    try:
        leads.append(True)
        until(lambda: "log_line_2" in log.partitions("log_line"))
        until(lambda: log.value("select count(*) from kirby.pace"))
        until(lambda: log.counted("letters") == 10_000)
        housekeeper._duties[3].at = 0.0  # planned before it was counted
        until(lambda: "message_0" not in log.partitions())
        until(lambda: log.there("letters") == [])
    finally:
        housekeeper.stop()

    assert log.wrong() == []


def test_housekeeping_tries_again_when_it_does_not_get_a_lock(log, until):
    from kirby.server.supervisor.housekeeping import Housekeeper

    full_partition(log, "30 days", "1 day")
    log.keep("orders", "10 days")
    housekeeper = Housekeeper(log.dsn, lambda: True)
    with psycopg.connect(log.dsn) as reader:
        reader.execute("select count(*) from kirby.message")
        housekeeper.round()
        assert "message_0" in log.partitions()

    def dropped():
        housekeeper.round()
        return "message_0" not in log.partitions()

    until(dropped)
    housekeeper.stop()


def test_by_hand(log, kirby):
    log.old("orders", 10, "3 days")
    log.subscribe("orders")
    log.count()

    assert "kept    forever" in kirby("topic", "retention", "orders").out
    said = kirby("topic", "retention", "orders", "--keep", "2d").out
    assert "kept     2d" in said
    assert "because  job: not handed out yet" in said
    assert "late     " in said
    said = kirby("topic", "retention", "orders", "--keep", "2d", "--even-unread").out
    assert "goes as well" in said
    [row] = log.ask("select keep::text, even_unread from kirby.topic_retention")
    assert row == ("2 days", True)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("topic", "retention", "orders", "--keep", "soon"), 1, "'soon' is not a span of time"),
        (("topic", "retention", "orders", "--keep", "0d"), 1, "'0d' is not a span of time"),
        (("topic", "retention", "nothing", "--keep", "1d"), 1, "there is no topic in dev called"),
        (("topic", "retention", "orders", "--even-unread"), 2, "--even-unread goes with --keep"),
        (("db", "retention", "--keep", "1d"), 2, "name the log"),
        (("db", "retention", "log_lines"), 1, "there is no log log_lines; did you mean log_line?"),
        (("db", "retention", "state_mutation", "--keep", "9d"), 1, "is the history of the states"),
        (("db", "retention", "message", "--keep", "9d"), 1, "messages are kept by topic"),
    ],
)
def test_what_is_refused_by_hand(log, kirby, arguments, code, complaint):
    log.publish("orders", 1)
    done = kirby(*arguments)

    assert done.code == code
    assert complaint in done.err


def test_logs_by_hand(log, kirby):
    log.publish("orders", 1)
    said = kirby("db", "retention").out
    assert "message         by topic" in said
    assert "log_line        90d" in said
    assert "audit_event     forever" in said

    said = kirby("db", "retention", "log_line", "--keep", "2w").out
    assert "kept  14d" in said
    assert (
        log.value("select keep::text from kirby.log_retention where log = 'log_line'") == "14 days"
    )


def test_the_listing_of_topics_shows_retention(log, kirby):
    import json

    log.old("orders", 10, "3 days")
    log.subscribe("orders")
    log.keep("orders", "1 day")
    log.publish("others", 1)

    [orders, others] = json.loads(kirby("topic", "list", "--json").out)

    assert (orders["keep"], orders["even_unread"], orders["blocked_by"]) == ("1d", False, "job")
    assert 2 * 86400 <= orders["late"] < 2 * 86400 + 60
    assert orders["oldest_at"] < others["oldest_at"]
    assert (others["keep"], others["late"], others["blocked_by"]) == (None, 0, None)


def test_more_lanes_by_hand(log, kirby):
    log.publish("orders", 1)

    assert kirby("topic", "lanes", "orders").out == "orders has 8 lanes\n"
    assert kirby("topic", "lanes", "orders", "16").out.startswith("orders has 16 lanes above posit")
    assert kirby("topic", "lanes", "orders").out == "orders has 16 lanes\n"
    assert kirby("topic", "lanes", "orders", "4").code == 1
