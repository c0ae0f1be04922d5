"""Retention: what is past its policy goes, and nothing else does, whoever asks."""

import threading

import psycopg
import pytest
from fix_log import actions, log_fixture  # noqa: F401
from psycopg import errors

from kirby.core import subscriptions
from kirby.core.subscriptions import Failure

REMOVED = "select gone_to, gone_at from kirby.topic_retention"


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
