"""The one connection of a script: who it is, how it comes back, and why it cannot begin."""

import os
import threading

import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core import db, protocol, subscriptions
from kirby.core.errors import Denied, Invalid, NotFound, Unavailable, WrongSchema
from kirby.sdk import session, topics

orders = kirby.Topic("orders")


def values():
    return [message.value for message in orders.read()]


def test_after_a_lost_connection_the_next_publish_works(sdk):
    orders.publish(1)
    assert sdk.terminate() == 1

    with pytest.raises(Unavailable, match="the connection to the database was lost") as caught:
        orders.publish(2)
    assert "\n" not in str(caught.value)
    orders.publish(3)

    assert values() == [1, 3]


def test_a_lost_connection_in_the_middle_of_publish_many_leaves_nothing(sdk, monkeypatch):
    document, made = topics.work.document, []

    def cut(groups):
        made.append(groups)
        if len(made) == 3:  # two parts are on their way
            sdk.terminate()
        return document(groups)

    monkeypatch.setattr(topics.work, "document", cut)

    with pytest.raises(Unavailable):
        orders.publish_many(range(2500))

    monkeypatch.undo()
    assert sdk.values("orders") == []


FORK = """
import os
orders, done = kirby.topic("orders"), []
orders.publish("parent")
pid = kirby.sdk.session.get().connection.info.backend_pid
child = os.fork()
orders.publish("child" if child == 0 else "parent")
if child == 0:
    assert kirby.sdk.session.get().connection.info.backend_pid != pid
    sys.exit(0)  # with everything that a process does at its end
assert os.waitpid(child, 0)[1] == 0
orders.publish("parent")
assert kirby.sdk.session.get().connection.info.backend_pid == pid
with kirby.transaction():
    orders.publish("together")
    child = os.fork()
    if child == 0:
        orders.publish("child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    orders.publish("together")
"""


def test_a_forked_child_has_a_connection_and_a_unit_of_work_of_its_own(house, scripts):
    assert scripts(FORK).end() == (0, "")

    published = house.values("orders")
    assert sorted(published[:4]) == ["child", "parent", "parent", "parent"]
    assert published[4:] == ["child", "together", "together"]


@pytest.mark.parametrize(
    ("environ", "kind", "complaint"),
    [
        ({"KIRBY_TOKEN": "wrong"}, Denied, "the token in kirby.token is not valid"),
        ({"KIRBY_TOKEN": ""}, Denied, "kirby_worker needs a token: set kirby.token, or KIRBY_TOKE"),
        ({"KIRBY_ENVIRONMENT": "prod"}, Denied, "belongs to environment dev, not to prod"),
        ({"KIRBY_DSN": "host=/nowhere user=a"}, Unavailable, "no database at /nowhere:5432/a: "),
        ({"KIRBY_DSN": "postgresql://a:geheim@127.0.0.1:1/x"}, Unavailable, "127.0.0.1:1/x: "),
        ({"KIRBY_DSN": "nonsense"}, Invalid, "the DSN cannot be read: missing"),
    ],
)
def test_a_script_that_cannot_begin_is_told_why_in_one_line(
    sdk, monkeypatch, environ, kind, complaint
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(kind) as caught:
        orders.publish(1)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_an_environment_that_does_not_exist_is_not_found(sdk, monkeypatch):
    monkeypatch.setenv("KIRBY_DSN", sdk.dsn)
    monkeypatch.setenv("KIRBY_TOKEN", "")
    monkeypatch.setenv("KIRBY_ENVIRONMENT", "staging")

    with pytest.raises(NotFound, match="there is no environment staging"):
        orders.publish(1)


def test_a_database_without_kirby_says_what_to_do(empty_dsn, monkeypatch):
    monkeypatch.setenv("KIRBY_DSN", empty_dsn)
    session.close()

    with pytest.raises(WrongSchema, match=r"has no Kirby schema.*: run 'kirby db migrate'"):
        orders.publish(1)


def test_a_login_without_rights_is_denied(sdk, as_role, monkeypatch):
    sdk.conn.execute("revoke usage on schema kirby from kirby_worker")

    with pytest.raises(Denied, match="this login has no right to that: permission denied"):
        orders.publish(1)


def test_a_newer_protocol_is_refused(sdk):
    sdk.conn.execute(
        "create or replace function kirby.protocol() returns integer language sql as 'select 99'"
    )

    with pytest.raises(WrongSchema, match="speaks protocol 99, this Kirby speaks 1: install the"):
        orders.publish(1)


def test_without_a_dsn_a_script_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("KIRBY_DSN", raising=False)
    monkeypatch.chdir(tmp_path)
    session.close()

    with pytest.raises(Invalid, match="no database: set KIRBY_DSN, or run 'kirby dev'"):
        orders.publish(1)


def test_below_the_folder_of_kirby_dev_the_dsn_is_found(sdk, monkeypatch, tmp_path):
    (tmp_path / ".kirby").mkdir()
    (tmp_path / ".kirby" / "dsn").write_text(os.environ["KIRBY_DSN"] + "\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.delenv("KIRBY_DSN")
    monkeypatch.chdir(tmp_path / "a" / "b")

    orders.publish(1)

    assert values() == [1]


def held(house):
    return dict(house.ask("select id, lease_until > now() from kirby.claim"))


def test_what_was_on_its_way_when_the_connection_broke_is_given_back_at_once(sdk):
    orders.publish_many([kirby.Out(n, key=f"k{n}") for n in range(100)])
    mine = session.get()
    subscription_id, _ = subscriptions.subscribe(mine.connection, "orders", "job")
    known = subscriptions.claim(mine.connection, subscription_id, 10)
    mine.holding(lambda: [known.claim_id])
    lost = subscriptions.claim(mine.connection, subscription_id, 10)  # its answer never arrived
    assert held(sdk) == {known.claim_id: True, lost.claim_id: True}

    sdk.terminate()
    again = mine.persist(lambda: subscriptions.claim(mine.connection, subscription_id, 100))

    assert set(lost.positions) <= set(again.positions)
    assert again.attempt == 1
    assert held(sdk) == {known.claim_id: True, again.claim_id: True}


def test_a_session_keeps_its_name_over_lost_connections_and_has_it_alone(sdk):
    mine = session.get()
    names = [db.scalar(mine.connection, "select current_setting('kirby.holder')")]
    mine.drop()
    names.append(db.scalar(mine.connection, HOLDER))
    session.close()
    other = session.get()
    assert names == [mine.holder, mine.holder]
    assert db.scalar(other.connection, HOLDER) == other.holder != mine.holder


HOLDER = "select current_setting('kirby.holder')"


def test_the_claims_of_others_are_left_alone(sdk):
    orders.publish_many([kirby.Out(n, key=f"k{n}") for n in range(100)])
    mine = session.get()
    mine.holding(list)
    subscription_id, _ = subscriptions.subscribe(mine.connection, "orders", "job")
    with db.connect(sdk.environ["KIRBY_DSN"]) as conn:
        protocol.greet(conn, token=sdk.environ["KIRBY_TOKEN"], environment=None, holder="other")
        theirs = subscriptions.claim(conn, subscription_id, 10)
        mine.drop()
        mine.connection.execute("select 1")

        assert held(sdk) == {theirs.claim_id: True}


def test_a_connection_is_not_closed_under_a_notification_that_is_sent(sdk, monkeypatch):
    """Its memory would be freed while another thread reads it."""
    mine = session.get()
    connection = mine.connection
    monkeypatch.setattr(session, "SENDING", 0.05)
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(
        session.topics, "notify", lambda conn, topics: (begun.set(), go_on.wait(10))
    )
    sender = threading.Thread(target=mine.notifier.notify, args=[[1]])
    sender.start()
    begun.wait(10)

    mine.drop()
    assert not connection.closed
    assert mine.connection is not connection

    go_on.set()
    sender.join()
    connection.close()
    mine.drop()
    assert mine.connection is not connection
