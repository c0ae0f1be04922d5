"""The outbox: messages commit with the rows of an application, or vanish with them."""

import asyncio
import contextlib
import subprocess
import sys
import threading

import asyncpg
import fix_applications
import psycopg
import psycopg2
import pytest
import sqlalchemy
from fix_applications import LOGIN, application_fixture, baskets, shop_fixture  # noqa: F401
from fix_runs import Runs
from fix_sdk import FOREIGN, house_fixture, sdk_fixture, stop_after  # noqa: F401
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import orm

import kirby
from kirby.core import db
from kirby.core.errors import Conflict, Denied, Invalid, NotFound, Unavailable, WrongSchema

orders = kirby.Topic("orders")


class Broken(Exception):
    pass


@pytest.fixture
def conn(shop):
    """An application's connection in autocommit."""
    with psycopg.connect(shop, autocommit=True) as conn:
        yield conn


# Together, or not at all


def test_a_message_commits_with_the_rows_of_the_application(sdk, application):
    with application.transaction() as connection:
        application.insert(1)
        position = orders.publish("one", connection=connection)
        assert sdk.values("orders") == []

    assert (baskets(sdk), sdk.values("orders")) == ([1], ["one"])
    assert [message.position for message in orders.read()] == [position]


def test_a_message_alone_begins_the_transaction(sdk, application):
    with application.transaction() as connection:
        orders.publish("one", connection=connection)
        assert sdk.values("orders") == []

    assert sdk.values("orders") == ["one"]


def test_a_message_vanishes_with_the_rows(sdk, application):
    with contextlib.suppress(Broken), application.transaction() as connection:
        application.insert(1)
        orders.publish("one", connection=connection)
        raise Broken

    assert (baskets(sdk), sdk.values("orders")) == ([], [])


def test_a_message_vanishes_with_its_savepoint(sdk, application):
    with application.transaction() as connection:
        application.insert(1)
        orders.publish("one", connection=connection)
        with contextlib.suppress(Broken), application.savepoint() as inner:
            application.insert(2)
            orders.publish("two", connection=inner)
            raise Broken
        application.insert(3)
        orders.publish("three", connection=connection)

    assert (baskets(sdk), sdk.values("orders")) == ([1, 3], ["one", "three"])
    assert [message.value for message in orders.read()] == ["one", "three"]


def test_many_messages_commit_with_the_rows(sdk, application):
    with application.transaction() as connection:
        application.insert(1)
        assert orders.publish_many(range(2500), connection=connection) == 2500

    assert sdk.values("orders") == list(range(2500))


def test_in_autocommit_a_message_is_there_at_once(sdk, conn):
    orders.publish(1, connection=conn)

    assert sdk.values("orders") == [1]
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_in_autocommit_many_are_all_or_none(sdk, conn, monkeypatch):
    write, calls = kirby.sdk.outbox._write, []

    def fail_at_the_second(conn, document):
        calls.append(document)
        return write(conn, document if len(calls) == 1 else "{")

    with monkeypatch.context() as patch:
        patch.setattr(kirby.sdk.outbox, "_write", fail_at_the_second)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            orders.publish_many(range(2500), connection=conn)
    assert sdk.values("orders") == []

    orders.publish_many(range(2500), connection=conn)
    assert sdk.values("orders") == list(range(2500))
    assert orders.publish_many([], connection=conn) == 0


def test_in_djangos_autocommit_a_message_is_there_at_once(sdk, shop):
    from django.db import connection

    django = fix_applications.Django(shop)
    orders.publish(1, connection=connection)

    assert sdk.values("orders") == [1]
    django.close()


def test_without_a_commit_sqlalchemy_leaves_nothing(sdk, shop):
    engine = fix_applications.engine(shop)
    with engine.connect() as connection:
        orders.publish(1, connection=connection)
    assert sdk.values("orders") == []

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        orders.publish(2, connection=connection)
    assert sdk.values("orders") == [2]
    engine.dispose()


def test_what_publish_can_say_it_says_here_too(sdk, conn):
    orders.publish({"a": "\u20ac"}, key="K", headers={"h": 1}, id="first", connection=conn)
    again = orders.publish("other", id="first", connection=conn)
    orders.publish_many([kirby.Out(2, key="L"), 3], key="M", connection=conn)

    found = list(orders.read())
    assert [(m.value, m.key, m.headers) for m in found] == [
        ({"a": "\u20ac"}, "K", {"h": 1}), (2, "L", {}), (3, "M", {}),
    ]  # fmt: skip
    assert again == found[0].position


def test_a_value_that_is_not_json_is_refused_before_the_transaction_is_touched(sdk, conn):
    with conn.transaction():
        conn.execute("insert into basket values (1)")
        with pytest.raises(Invalid, match="the payload cannot be stored"):
            orders.publish(float("nan"), connection=conn)

    assert baskets(sdk) == [1]


def test_in_a_handler_it_goes_to_the_connection_and_names_its_parents(sdk, conn):
    first = orders.publish("in")

    @kirby.stream("orders", to="bills")
    def bill(value):
        with conn.transaction():
            kirby.topic("ledger").publish("booked", connection=conn)
        stop()
        raise Broken

    stop = stop_after(1)
    kirby.run()

    [booked] = kirby.topic("ledger").read()
    assert (booked.value, booked.parents) == ("booked", (first,))


def test_two_transactions_that_overlap_are_read_in_one_order(sdk, shop, conn):
    first = orders.publish("first")
    with psycopg.connect(shop) as early:
        orders.publish("early", connection=early)
        orders.publish("late", connection=conn)
        assert list(orders.read(after=first)) == []  # early is still to come
    assert [message.value for message in orders.read(after=first)] == ["early", "late"]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_the_isolation_of_the_application_does_not_matter(sdk, conn, level):
    orders.publish("first")
    with conn.transaction():
        conn.execute("set transaction isolation level " + level)
        conn.execute("insert into basket values (1)")
        orders.publish("second")
        orders.publish("third", connection=conn)

    assert [message.value for message in orders.read()] == ["first", "second", "third"]


# Who publishes


def test_the_token_of_the_process_decides_where(sdk, conn, monkeypatch):
    sdk.give_token(FOREIGN, "preprod")
    monkeypatch.setenv("KIRBY_TOKEN", FOREIGN)
    monkeypatch.setenv("KIRBY_ENVIRONMENT", "preprod")

    orders.publish("foreign", connection=conn)

    assert sdk.ask(
        "select e.name from kirby.topic t join kirby.environment e on e.id = t.environment_id"
    ) == [("preprod",)]


def test_a_run_publishes_as_itself(sdk, conn, monkeypatch):
    run_id = Runs(sdk.conn).start("")
    sdk.give_token("of-run", "dev", run_id)
    monkeypatch.setenv("KIRBY_TOKEN", "of-run")

    orders.publish(1, connection=conn)

    assert sdk.ask("select run_id from kirby.message") == [(run_id,)]


def test_a_bad_token_is_refused(conn, monkeypatch):
    monkeypatch.setenv("KIRBY_TOKEN", "never-given")

    with pytest.raises(Denied, match=r"the token in kirby\.token is not valid"):
        orders.publish(1, connection=conn)


def test_a_login_without_a_token_is_refused(conn, monkeypatch):
    monkeypatch.delenv("KIRBY_TOKEN")

    with pytest.raises(Denied, match=f"{LOGIN} needs a token: set kirby.token, or KIRBY_TOKEN"):
        orders.publish(1, connection=conn)


def test_a_login_of_the_server_needs_no_token(sdk, conn, monkeypatch):
    monkeypatch.delenv("KIRBY_TOKEN")
    monkeypatch.setenv("KIRBY_ENVIRONMENT", "prod")
    sdk.conn.execute("grant kirby_server to kirby_test_shop")

    orders.publish(1, connection=conn)

    assert sdk.ask(
        "select e.name from kirby.topic t join kirby.environment e on e.id = t.environment_id"
    ) == [("prod",)]


def test_an_environment_that_is_not_there_is_named(sdk, conn, monkeypatch):
    monkeypatch.delenv("KIRBY_TOKEN")
    monkeypatch.setenv("KIRBY_ENVIRONMENT", "moon")
    sdk.conn.execute("grant kirby_server to kirby_test_shop")

    with pytest.raises(NotFound, match="there is no environment moon"):
        orders.publish(1, connection=conn)


def test_what_the_process_does_not_say_is_as_the_connection_has_it(sdk, conn, monkeypatch):
    sdk.give_token(FOREIGN, "preprod")
    monkeypatch.delenv("KIRBY_TOKEN")
    monkeypatch.delenv("KIRBY_ENVIRONMENT")
    conn.execute("select set_config('kirby.token', %s, false)", [FOREIGN])

    orders.publish(1, connection=conn)

    assert sdk.ask("select e.name from kirby.topic t, kirby.environment e"
                   " where e.id = t.environment_id") == [("preprod",)]  # fmt: skip


# What is the application's stays as it was


SETTINGS = "select current_setting('kirby.token', true), current_setting('kirby.environment', true)"


def test_the_token_does_not_stay_behind(conn):
    with conn.transaction():
        orders.publish(1, connection=conn)
        assert conn.execute(SETTINGS).fetchone() == ("", "")
        with contextlib.suppress(psycopg.Error), conn.transaction():
            conn.execute("select kirby.publish_within('[]', 'bad')")
        assert conn.execute(SETTINGS).fetchone() == ("", "")
        with pytest.raises(psycopg.Error, match="needs a token"):
            conn.execute("select kirby.publish('orders', '1')")


def test_settings_of_the_connection_are_put_back(conn):
    conn.execute("set kirby.token = 'mine'; set kirby.environment = 'preprod'")
    orders.publish(1, connection=conn)
    assert conn.execute(SETTINGS).fetchone() == ("mine", "preprod")

    with conn.transaction():
        conn.execute("set local kirby.environment = 'prod'")
        orders.publish(1, connection=conn)
        assert conn.execute(SETTINGS).fetchone() == ("mine", "prod")
    assert conn.execute(SETTINGS).fetchone() == ("mine", "preprod")


def test_what_the_application_made_of_its_connection_is_not_touched_and_not_in_the_way(sdk, shop):
    class Odd(psycopg.adapt.Dumper):
        oid = psycopg.adapters.types["text"].oid

        def dump(self, value):
            return b"odd"

    class Odder(psycopg.adapt.Loader):
        def load(self, data):
            return "odder"

    with psycopg.connect(
        shop,
        row_factory=psycopg.rows.dict_row,
        cursor_factory=psycopg.RawCursor,
        prepare_threshold=0,
    ) as conn:
        conn.adapters.register_dumper(str, Odd)
        for name in ("text", "int8", "jsonb", "json"):
            conn.adapters.register_loader(name, Odder)
        psycopg.types.json.set_json_loads(lambda text: "mine", conn)
        conn.execute("set search_path = pg_temp")
        conn.execute("set client_encoding = latin1")

        orders.publish({"a": "\u20ac"}, key="\u20ac", connection=conn)

        found = conn.execute("select $1 as a, 'b' as b, '{}'::jsonb as c", ["x"]).fetchone()
        assert found == {"a": "odder", "b": "odder", "c": "mine"}
        assert conn.execute("show search_path").fetchone() == {"search_path": "odder"}
        conn.commit()
        names = conn.execute("select count(*)::int4 as n from pg_prepared_statements"
                             " where statement like 'select positions%'").fetchone()  # fmt: skip
        assert names == {"n": 0}
    assert [(m.value, m.key) for m in orders.read()] == [({"a": "\u20ac"}, "\u20ac")]


def test_in_the_pipeline_of_the_application(sdk, conn):
    with conn.pipeline(), conn.transaction():
        conn.execute("insert into basket values (1)")
        assert orders.publish(1, connection=conn) > 0

    assert (baskets(sdk), sdk.values("orders")) == ([1], [1])


# Readers are woken


def test_readers_are_woken_by_the_commit_and_once(sdk, shop):
    orders.publish("first")
    with psycopg.connect(sdk.dsn, autocommit=True) as listener, psycopg.connect(shop) as conn:
        listener.execute(db.listen(f"kirby_topic_{sdk.topic_id('orders')}"))
        for number in range(3):
            orders.publish(number, connection=conn)
        assert list(listener.notifies(timeout=0.1)) == []
        conn.commit()

        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


def test_a_waiting_worker_gets_it_at_once(sdk, conn, monkeypatch):
    monkeypatch.setattr("kirby.sdk.loop.POLL", 3600)
    seen, stop = [], stop_after(2)

    @kirby.stream("orders")
    def take(value):
        seen.append(value)
        if value == "first":
            threading.Timer(0.2, orders.publish, ["second"], {"connection": conn}).start()
        stop()

    orders.publish("first")
    kirby.run()

    assert seen == ["first", "second"]


def test_an_application_can_do_without(sdk, conn):
    orders.publish("first")
    conn.execute("set kirby.wake = off")
    with psycopg.connect(sdk.dsn, autocommit=True) as listener:
        listener.execute(db.listen(f"kirby_topic_{sdk.topic_id('orders')}"))
        orders.publish("quiet", connection=conn)
        conn.execute("set kirby.wake = on")
        orders.publish("loud", connection=conn)
        [first] = listener.notifies(timeout=10, stop_after=1)

        assert first.pid == conn.info.backend_pid
        assert list(listener.notifies(timeout=0.1)) == []
    assert sdk.values("orders") == ["first", "quiet", "loud"]


# Errors


def test_a_closed_connection(conn):
    conn.close()

    with pytest.raises(Unavailable, match="the connection to publish on is closed"):
        orders.publish(1, connection=conn)


def test_a_connection_that_breaks(sdk, conn):
    sdk.value("select pg_terminate_backend(%s, 5000)", conn.info.backend_pid)

    with pytest.raises(Unavailable, match="the connection to the database was lost"):
        orders.publish(1, connection=conn)


def test_a_transaction_that_has_failed(sdk, conn):
    with contextlib.suppress(psycopg.Error), conn.transaction():
        with contextlib.suppress(psycopg.Error):
            conn.execute("select 1/0")
        with pytest.raises(Invalid, match="the transaction to publish in has failed already: roll"):
            orders.publish(1, connection=conn)

    assert sdk.values("orders") == []


def test_a_database_without_kirby(sdk, empty_dsn):
    with psycopg.connect(empty_dsn) as conn:
        name = conn.info.dbname
        with pytest.raises(
            WrongSchema, match=f"the database {name} of this connection has no Kirby"
        ):
            orders.publish(1, connection=conn)


def test_a_login_without_the_right(sdk):
    with (
        psycopg.connect(fix_applications.shop(sdk)) as conn,
        pytest.raises(Denied, match=f"'grant kirby_worker to {LOGIN}'"),
    ):
        orders.publish(1, connection=conn)


def test_a_topic_made_meanwhile_is_a_conflict_in_repeatable_read(sdk, conn):
    with contextlib.suppress(Conflict), conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select 1 from basket")
        kirby.topic("fresh").publish(1)
        with pytest.raises(Conflict, match="two transactions met"):
            kirby.topic("fresh").publish(2, connection=conn)
        raise Conflict

    assert sdk.values("fresh") == [1]


def test_other_drivers_are_refused_by_name(shop):
    parts = conninfo_to_dict(shop)
    conn = psycopg2.connect(shop)
    with pytest.raises(Invalid, match="a connection of psycopg2, since Kirby speaks through psyc"):
        orders.publish(1, connection=conn)
    conn.close()

    engine = fix_applications.engine(shop, "postgresql+psycopg2")
    with engine.connect() as conn, pytest.raises(Invalid, match="a connection of psycopg2"):
        orders.publish(1, connection=conn)
    engine.dispose()

    async def of_asyncpg():
        conn = await asyncpg.connect(
            host=parts["host"], port=parts["port"], user=parts["user"],
            password=parts["password"], database=parts["dbname"],
        )  # fmt: skip
        try:
            with pytest.raises(Invalid, match="a connection of asyncpg"):
                orders.publish(1, connection=conn)
            with pytest.raises(Invalid, match="a connection of asyncpg"):
                await orders.apublish(1, connection=conn)
        finally:
            await conn.close()

    asyncio.run(of_asyncpg())


def test_djangos_connection_over_another_driver_is_refused(sdk):
    from django.db.backends.sqlite3.base import DatabaseWrapper

    wrapper = DatabaseWrapper({
        "NAME": ":memory:", "OPTIONS": {}, "TIME_ZONE": None, "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False,
    })  # fmt: skip
    with pytest.raises(Invalid, match="published on a connection of sqlite3, since"):
        orders.publish(1, connection=wrapper)
    wrapper.close()


@pytest.mark.parametrize("what", ["postgresql://host/db", 7, object()])
def test_what_is_no_connection_is_refused(sdk, what):
    with pytest.raises(Invalid, match=r"cannot be published on an? \w+: give a psycopg conn"):
        orders.publish(1, connection=what)


def test_sqlalchemys_engine_is_refused(sdk, shop):
    engine = fix_applications.engine(shop)
    with pytest.raises(Invalid, match="cannot be published on SQLAlchemy's Engine: give"):
        orders.publish(1, connection=engine)
    engine.dispose()


def test_the_sdk_needs_neither_sqlalchemy_nor_django():
    code = "import sys, kirby; print({'sqlalchemy', 'django'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_sqlalchemys_own_errors_stay_its_own(shop):
    engine = fix_applications.engine(shop)
    connection = engine.connect()
    connection.close()
    with pytest.raises(sqlalchemy.exc.ResourceClosedError, match="closed"):
        orders.publish(1, connection=connection)

    with orm.Session(engine) as session:
        session.add(fix_applications.Basket(id=1))
        session.flush()
        session.execute(sqlalchemy.text("insert into basket values (2)"))
        session.add(fix_applications.Basket(id=2))
        with contextlib.suppress(sqlalchemy.exc.IntegrityError):
            session.flush()
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            orders.publish(1, connection=session)
    engine.dispose()
