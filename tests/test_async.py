"""Asynchronous applications: the event loop is not held up, and nothing is lost or doubled."""

import asyncio
import contextlib
import gc
import threading

import fix_applications
import psycopg
import pytest
import sqlalchemy
from fix_applications import baskets, shop_fixture  # noqa: F401
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture  # noqa: F401
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import kirby
from kirby.core.errors import Conflict, Invalid, Unavailable
from kirby.sdk import asynchronous, session

orders = kirby.Topic("orders")


@pytest.fixture(autouse=True)
def _threads():
    yield
    asynchronous.close()


def values():
    return [message.value for message in orders.read()]


# Publishing


def test_apublish_returns_the_position(sdk):
    async def main():
        first = await orders.apublish({"a": 1}, key="K", headers={"h": 1}, id="one")
        again = await orders.apublish("other", id="one")
        assert again == first
        return first

    position = asyncio.run(main())

    [found] = orders.read()
    assert (found.position, found.value) == (position, {"a": 1})
    assert (found.key, found.headers) == ("K", {"h": 1})


def test_apublish_many_returns_how_many(sdk):
    async def main():
        return await orders.apublish_many(kirby.Out(n, key="K") for n in range(2500))

    assert asyncio.run(main()) == 2500
    assert values() == list(range(2500))


def test_an_error_is_raised_where_it_is_awaited(sdk):
    async def main():
        with pytest.raises(Invalid, match="the payload cannot be stored"):
            await orders.apublish(float("nan"))
        with pytest.raises(Invalid, match="cannot be stored"):
            await orders.apublish_many([1, float("nan")])
        with pytest.raises(TypeError, match="unexpected keyword"):
            await orders.apublish(1, when="now")

    asyncio.run(main())
    assert sdk.values("orders") == []


def test_the_event_loop_goes_on_meanwhile(sdk, held):
    async def main():
        waiting = asyncio.create_task(orders.apublish("held"))
        await reached(held.reached)
        assert not waiting.done()
        held.go_on.set()
        await waiting

    asyncio.run(main())
    assert values() == ["held"]


def test_many_at_once_take_a_few_connections(sdk):
    async def main():
        await asyncio.gather(*(orders.apublish(n) for n in range(100)))

    asyncio.run(main())

    assert sorted(values()) == list(range(100))
    logins = "select count(*) from pg_stat_activity where usename = 'kirby_worker'"
    assert sdk.value(logins + " and datname = current_database()") <= asynchronous.THREADS + 1


def test_after_a_lost_connection_the_next_one_works(sdk):
    async def main():
        await orders.apublish(1)
        sdk.terminate()
        with pytest.raises(Unavailable):
            await orders.apublish(2)
        await orders.apublish(3)

    asyncio.run(main())
    assert values() == [1, 3]


# Cancellation


class Held:
    """Calls of a thread wait at `go_on`, after `reached` was set."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()


@pytest.fixture
def held(sdk, monkeypatch):
    """Whatever is published waits, before it is written."""
    held, insert = Held(), kirby.sdk.topics._insert

    def slow(mine, name, items):
        held.reached.set()
        assert held.go_on.wait(30)
        return insert(mine, name, items)

    monkeypatch.setattr(kirby.sdk.topics, "_insert", slow)
    yield held
    held.go_on.set()


async def reached(event):
    while not event.is_set():
        await asyncio.sleep(0.001)


def test_a_call_that_has_begun_is_done_before_its_task_is_cancelled(sdk, held):
    async def main():
        task = asyncio.create_task(orders.apublish("once"))
        await reached(held.reached)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        held.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sdk.values("orders") == ["once"]

    asyncio.run(main())


def test_a_call_that_waits_for_a_thread_never_happens_if_it_is_cancelled(sdk, held, monkeypatch):
    monkeypatch.setattr(asynchronous, "THREADS", 1)

    async def main():
        first = asyncio.create_task(orders.apublish("first"))
        await reached(held.reached)
        second = asyncio.create_task(orders.apublish("second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        held.go_on.set()
        await first
        await orders.apublish("third")

    asyncio.run(main())
    assert values() == ["first", "third"]


def test_a_timeout_that_strikes_leaves_it_done_or_not_begun(sdk):
    outcomes = []

    async def attempt(number):
        try:
            await asyncio.wait_for(orders.apublish(number), 0.002 * (number % 5))
            outcomes.append(number)
        except TimeoutError:
            pass

    async def main():
        for number in range(100):
            await attempt(number)
        return list(asyncio.all_tasks())

    asyncio.run(main())
    there = sdk.values("orders")
    assert set(outcomes) <= set(there)
    assert len(there) == len(set(there))


def test_an_error_of_a_call_whose_task_was_cancelled_is_not_complained_of(sdk, held, caplog):
    async def main():
        task = asyncio.create_task(orders.apublish_many([1]))
        await reached(held.reached)
        sdk.terminate()
        task.cancel()
        await asyncio.sleep(0)
        held.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gc.collect()
    assert caplog.text == ""


# Transactions


def test_an_asynchronous_transaction_is_written_at_its_end(sdk):
    async def main():
        async with kirby.transaction():
            assert await orders.apublish(1) is None
            assert await orders.apublish_many([2, 3]) == 2
            kirby.state("stock")["apple"] = 1
            assert sdk.values("orders") == []
        assert sdk.values("orders") == [1, 2, 3]
        with contextlib.suppress(ZeroDivisionError):
            async with kirby.transaction():
                await orders.apublish(4)
                raise ZeroDivisionError

    asyncio.run(main())
    assert values() == [1, 2, 3]
    assert kirby.state("stock")["apple"] == 1


def test_a_plain_transaction_and_tasks_in_it_are_respected(sdk):
    async def main():
        with kirby.transaction():
            await asyncio.gather(orders.apublish(1), orders.apublish(2))
            await asyncio.wait_for(orders.apublish(3), 10)
            assert sdk.values("orders") == []

    asyncio.run(main())
    assert values() == [1, 2, 3]


def test_transactions_of_tasks_do_not_mix(sdk):
    async def one(number):
        async with kirby.transaction():
            await orders.apublish([number, 1])
            await asyncio.sleep(0)
            await orders.apublish([number, 2])

    async def main():
        await asyncio.gather(*(one(number) for number in range(10)))

    asyncio.run(main())
    found = values()
    assert sorted(found) == [[number, part] for number in range(10) for part in (1, 2)]
    assert all(found.index([number, 1]) < found.index([number, 2]) for number in range(10))


def test_a_task_that_outlives_its_transaction_is_told_so(sdk):
    async def late(ended):
        await ended.wait()
        await orders.apublish("lost?")

    async def main():
        ended = asyncio.Event()
        async with kirby.transaction():
            await orders.apublish("in time")
            task = asyncio.create_task(late(ended))
        ended.set()
        with pytest.raises(Invalid, match="in which this task was started has ended"):
            await task

    asyncio.run(main())
    assert values() == ["in time"]


def test_a_conflict_of_an_asynchronous_transaction_is_raised_at_its_end(sdk):
    stock = kirby.state("stock")
    stock["apple"] = 1

    async def main():
        with pytest.raises(Conflict, match="nothing was written, run the block again"):
            await overtaken()

    async def overtaken():
        async with kirby.transaction():
            stock["apple"] += 1
            await asyncio.to_thread(change)

    def change():
        unit = kirby.sdk.work.Work()
        unit.write("stock", "apple", "set", "100")
        session.get().commit(unit)

    asyncio.run(main())
    assert stock["apple"] == 100


def test_a_transaction_decorates_functions(sdk):
    @kirby.transaction()
    def both(a, b):
        orders.publish(a)
        orders.publish(b)

    both(1, 2)
    with pytest.raises(Invalid):
        both(3, float("nan"))

    assert values() == [1, 2]


# The outbox


def test_on_psycopgs_asynchronous_connection(sdk, shop):
    async def main():
        async with await psycopg.AsyncConnection.connect(shop) as conn:
            await conn.execute("insert into basket values (1)")
            position = await orders.apublish("one", connection=conn)
            assert sdk.values("orders") == []
            await conn.commit()
            async with conn.cursor() as cursor:
                await orders.apublish("two", connection=cursor)
            await conn.rollback()
            await conn.set_autocommit(True)
            await orders.apublish_many(range(2500), connection=conn)
        return position

    position = asyncio.run(main())
    assert (baskets(sdk), values()) == ([1], ["one", *range(2500)])
    assert next(orders.read()).position == position


def aengine(shop, scheme="postgresql+psycopg"):
    return fix_applications.engine(shop, scheme, make=sqlalchemy_asyncio.create_async_engine)


INSERT = sqlalchemy.text("insert into basket values (:id)")


def test_on_sqlalchemys_asynchronous_session(sdk, shop):
    async def main():
        engine = aengine(shop)
        async with sqlalchemy_asyncio.AsyncSession(engine) as db:
            db.add(fix_applications.Basket(id=1))
            await db.flush()
            await orders.apublish("one", connection=db)
            with contextlib.suppress(ZeroDivisionError):
                async with db.begin_nested():
                    await orders.apublish("two", connection=db)
                    raise ZeroDivisionError
            assert sdk.values("orders") == []
            await db.commit()
            await orders.apublish("three", connection=db)
            await db.rollback()
            await db.run_sync(lambda plain: orders.publish("four", connection=plain))
            await orders.apublish_many(range(5), connection=db)
            await db.commit()
        await engine.dispose()

    asyncio.run(main())
    assert (baskets(sdk), values()) == ([1], ["one", "four", *range(5)])


def test_on_sqlalchemys_asynchronous_connection(sdk, shop):
    async def main():
        engine = aengine(shop)
        async with engine.connect() as conn:
            await orders.apublish("one", connection=conn)
            await conn.execute(INSERT, {"id": 1})
            await conn.commit()
            await orders.apublish("two", connection=conn)
        async with engine.begin() as conn:
            await orders.apublish("three", connection=conn)
        await engine.dispose()

    asyncio.run(main())
    assert (baskets(sdk), values()) == ([1], ["one", "three"])


def test_each_connection_in_its_own_kind_of_code(sdk, shop):
    async def main():
        async with await psycopg.AsyncConnection.connect(shop) as conn:
            with pytest.raises(Invalid, match="is asynchronous: await apublish"):
                orders.publish(1, connection=conn)
        engine = aengine(shop)
        async with engine.connect() as conn:
            with pytest.raises(Invalid, match="is asynchronous: await apublish"):
                orders.publish(1, connection=conn)
        await engine.dispose()
        engine = aengine(shop, "postgresql+asyncpg")
        async with engine.connect() as conn:
            with pytest.raises(Invalid, match="a connection of asyncpg"):
                await orders.apublish(1, connection=conn)
        await engine.dispose()
        with psycopg.connect(shop) as conn, pytest.raises(Invalid, match="cannot be awaited on"):
            await orders.apublish(1, connection=conn)

    asyncio.run(main())


def test_errors_of_an_asynchronous_connection(sdk, shop):
    async def main():
        conn = await psycopg.AsyncConnection.connect(shop)
        with contextlib.suppress(psycopg.Error):
            await conn.execute("select 1/0")
        with pytest.raises(Invalid, match="has failed already"):
            await orders.apublish(1, connection=conn)
        await conn.close()
        with pytest.raises(Unavailable, match="is closed"):
            await orders.apublish(1, connection=conn)

    asyncio.run(main())


# Applications


@pytest.fixture
def app(sdk):
    async def order(request):
        return JSONResponse({"position": await orders.apublish(await request.json())})

    async def together(request):
        async with kirby.transaction():
            for value in await request.json():
                await orders.apublish(value)
        return JSONResponse({})

    def plain(request):
        return JSONResponse({"position": orders.publish("plain")})

    return Starlette(
        routes=[
            Route("/order", order, methods=["POST"]),
            Route("/together", together, methods=["POST"]),
            Route("/plain", plain, methods=["POST"]),
        ]
    )


def test_a_starlette_application(app):
    with TestClient(app) as client:
        position = client.post("/order", json={"a": 1}).json()["position"]
        assert client.post("/together", json=[1, 2]).status_code == 200
        assert client.post("/plain").json()["position"] > position

    assert values() == [{"a": 1}, 1, 2, "plain"]


def test_requests_at_the_same_time(app):
    import httpx2 as httpx

    async def main():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = await asyncio.gather(*(client.post("/order", json=n) for n in range(50)))
        return [answer.json()["position"] for answer in answers]

    positions = asyncio.run(main())
    assert sorted(values()) == list(range(50))
    assert len(set(positions)) == 50


def test_a_second_loop_uses_the_same_threads(sdk):
    for number in range(3):
        asyncio.run(orders.apublish(number))

    assert values() == [0, 1, 2]


PROGRAM = """
import asyncio, warnings
warnings.simplefilter("error")
async def main():
    await asyncio.gather(*(kirby.topic("orders").apublish(n) for n in range(20)))
    if child:
        sys.exit(3)
child = False
asyncio.run(main(), debug=True)
if os.environ.get("FORK"):
    pid = os.fork()
    child = pid == 0
    asyncio.run(main())
    assert os.waitpid(pid, 0)[1] >> 8 == 3
"""


def test_a_program_ends_without_a_word(sdk, scripts):
    assert scripts(PROGRAM, PYTHONWARNINGS="error").end() == (0, "")
    assert sorted(values()) == list(range(20))


def test_a_forked_program_has_threads_of_its_own(sdk, scripts):
    code, errors = scripts(PROGRAM.replace('"error"', '"ignore"'), FORK="1").end()

    assert code == 0, errors
    assert sorted(values()) == sorted(list(range(20)) * 3)


def test_closing_ends_the_threads_and_their_connections(sdk, until):
    asyncio.run(orders.apublish(1))
    asynchronous.close()

    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("kirby_")]
    logins = "select count(*) from pg_stat_activity where usename = 'kirby_worker'"
    until(lambda: sdk.value(logins + " and datname = current_database()") == 0)
    asyncio.run(orders.apublish(2))
