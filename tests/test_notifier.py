"""Notifications: after the commit, few, and the last is never lost."""

import contextlib
import threading
import time

import psycopg
import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core import db
from kirby.core.errors import Unavailable
from kirby.sdk import notifier, session

orders = kirby.Topic("orders")


@pytest.fixture
def listener(sdk):
    """A connection that listens to `orders`."""
    orders.publish("first")
    with psycopg.connect(sdk.dsn, autocommit=True) as conn:
        conn.execute(db.listen(f"kirby_topic_{sdk.topic_id('orders')}"))
        yield conn


def heard(conn, seconds=0.5):
    return len(list(conn.notifies(timeout=seconds)))


@pytest.mark.parametrize("how", ["publish", "publish_many", "transaction", "pages"])
def test_a_listener_is_woken_after_the_commit(listener, how):
    if how == "publish":
        orders.publish(1)
    elif how == "transaction":
        with kirby.transaction():
            orders.publish(1)
            assert heard(listener, 0.05) == 0
    else:
        orders.publish_many(range(2500 if how == "pages" else 2))

    assert next(listener.notifies(timeout=10)).payload == ""


def test_psql_wakes_a_listener_too(sdk, listener):
    sdk.publish("orders", 1)

    assert next(listener.notifies(timeout=10))


def test_what_is_rolled_back_wakes_nobody(listener):
    with contextlib.suppress(RuntimeError), kirby.transaction():
        orders.publish(1)
        raise RuntimeError

    assert heard(listener, 0.1) == 0


def test_many_publishes_give_few_notifications_and_the_last_is_not_lost(listener):
    started = time.monotonic()
    for number in range(300):
        orders.publish(number)
    took = time.monotonic() - started
    session.get().notifier.close()

    first, *others = listener.notifies(timeout=0.5)

    assert first.pid == session.get().connection.info.backend_pid
    assert len(others) <= took / notifier.PAUSE + 2
    assert len(others) < 300


@pytest.fixture
def sent():
    return []


@pytest.fixture
def slow(sent, monkeypatch):
    """A notifier whose pause never ends by itself."""
    monkeypatch.setattr(notifier, "PAUSE", 3600)
    made = notifier.Notifier(sent.append)
    yield made
    made.flush()


def test_the_first_notification_goes_out_at_once_and_those_that_follow_are_gathered(slow, sent):
    slow.notify([1])
    slow.notify([1])
    slow.notify([1, 2])
    slow.notify([2])
    assert sent == [[1], [2]]

    slow.flush()
    assert sent == [[1], [2], [1, 2]]


def test_closing_a_notifier_leaves_nothing_unsent(slow, sent):
    slow.notify([1])
    slow.notify([1])
    slow.close()
    slow.close()

    assert sent == [[1], [1]]


def test_closing_waits_for_a_notification_that_is_being_sent():
    """The connection is closed next: not while another thread is in the middle of a statement."""
    begun, go_on, done = threading.Event(), threading.Event(), []

    def send(topics):
        begun.set()
        go_on.wait(10)
        done.append(topics)

    made = notifier.Notifier(send)
    sender = threading.Thread(target=made.notify, args=[[1]])
    sender.start()
    begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    made.close()

    assert done == [[1]]
    sender.join()


def test_closing_waits_for_what_is_about_to_be_sent(sent, until):
    """What was taken to be sent is on its way, though nobody is at the connection yet."""
    made = notifier.Notifier(sent.append)
    taken, go_on = threading.Event(), threading.Event()

    def due():
        taken.set()
        go_on.wait(10)
        return [1]

    sender = threading.Thread(target=made._try, args=[due])
    sender.start()
    taken.wait(10)
    closer = threading.Thread(target=made.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    go_on.set()
    closer.join(10)
    assert sent == [[1]]
    sender.join()


def test_gathered_notifications_go_out_by_themselves(sent, until):
    made = notifier.Notifier(sent.append)
    made.notify([1])
    made.notify([1])

    until(lambda: sent == [[1], [1]])


def test_who_comes_by_sends_what_was_gathered(sent, monkeypatch):
    monkeypatch.setattr(notifier, "LOOK", 3600)
    made = notifier.Notifier(sent.append)
    made.notify([1])
    made.notify([1, 2])
    made.notify([1])
    assert sent == [[1], [2]]

    monkeypatch.setattr(notifier, "PAUSE", 0)
    made.notify([3])
    assert sorted(sent[-1]) == [1, 3]


def test_the_thread_is_there_only_while_there_is_something_to_send(sent, until, monkeypatch):
    monkeypatch.setattr(notifier, "LOOKS", 2)
    made = notifier.Notifier(sent.append)
    for number in (2, 4):
        made.notify([1])
        made.notify([1])
        until(lambda number=number: len(sent) == number)
        until(lambda: made._looking is None)
        until(lambda: time.monotonic() - made._sent[1] > notifier.PAUSE)


@pytest.mark.parametrize("error", [Unavailable("gone"), psycopg.InterfaceError("closed")])
def test_a_notification_that_cannot_be_sent_is_no_error(error):
    def fail(topics):
        raise error

    notifier.Notifier(fail).notify([1])


def test_a_lost_notification_after_the_commit_does_not_fail_the_publish(sdk, monkeypatch):
    def fail(conn, topics):
        sdk.terminate()
        conn.execute("select 1")

    monkeypatch.setattr(session.topics, "notify", fail)

    orders.publish(1)

    assert sdk.values("orders") == [1]


def test_a_script_that_ends_sends_its_last_notification(listener, scripts):
    script = scripts("for n in range(100): kirby.topic('orders').publish(n)\nos._exit(0)")
    pids = {notify.pid for notify in listener.notifies(timeout=30, stop_after=1)}

    assert script.end()[0] == 0
    assert len(pids) == 1
