"""Housekeeping: what a supervisor does for the log by itself, and what people do by hand."""

import json

import psycopg
import pytest
from fix_log import full_partition, log_fixture  # noqa: F401

from kirby.server.supervisor.housekeeping import Housekeeper


def test_a_supervisor_keeps_house(log, as_role, until):
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
